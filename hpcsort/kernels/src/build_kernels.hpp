// Defines the table of kernels NAME of this compilation's instruction set.
#pragma once

#include "latent_kernels.hpp"
#include "moment_kernels.hpp"
#include "read_kernels.hpp"
#include "sum_kernels.hpp"
#include "write_kernels.hpp"

#define HPCSORT_DEFINE_KERNELS(TABLE, NAME) \
    const hpcsort::Kernels hpcsort::TABLE = {NAME,     extract,       score,  moments,     \
                                             subtract, leave_one_out, insert, backproject, \
                                             add_rounded<float>, add_rounded<double>,      \
                                             posteriors, moment_weights, marginals}
