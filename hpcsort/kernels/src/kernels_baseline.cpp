#include "build_kernels.hpp"

HPCSORT_DEFINE_KERNELS(kernels_baseline, "baseline");
