#include "build_kernels.hpp"

HPCSORT_DEFINE_KERNELS(kernels_avx2, "avx2");
