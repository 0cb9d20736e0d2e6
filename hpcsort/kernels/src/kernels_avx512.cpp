#include "build_kernels.hpp"

HPCSORT_DEFINE_KERNELS(kernels_avx512, "avx512");
