// What the instruction-set builds offer to the Python module: plain pointers, checked by the caller.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hpcsort {

extern const std::size_t near_bytes;  // volumes up to this size stay in the second-level cache

constexpr int BLOCK = 64;  // pixels whose geometry is worked out together

// Particles and where their pixels lie. Complex numbers are pairs of floats.
struct Particles {
    std::int64_t n, pixels;
    const float *rotations;  // (n, 3, 3)
    const float *px, *py;    // (pixels rounded up to full blocks)
    float pad;
    const float *images;  // (n, pixels) complex; null where only geometry matters
    const float *ctfs;    // (n, pixels); null likewise
    const std::int32_t *rows;  // row of each of the n particles in the arrays; null: their order
    std::int64_t row(std::int64_t particle) const { return rows ? rows[particle] : particle; }
};

// Maps interleaved voxel by voxel: (2h+1, 2h+1, h+1, 2, lanes), of which `count` lanes are maps.
struct Interleaved {
    const float *data;
    std::int64_t half, lanes, count;
};

// What takes part in a class: entry t is particle particles[t], or t where that is null, in class labels[t] (-1: none).
struct Entries {
    std::int64_t n;
    const std::int32_t *particles, *labels;
};

struct Kernels {
    const char *name;
    void (*extract)(const Particles &, const float *volume, std::int64_t half, float *out);
    void (*score)(const Particles &, const Interleaved &, float *cross, float *power);
    void (*moments)(const Particles &, const Interleaved &, float *linear, float *gram);
    void (*subtract)(const Particles &, const Interleaved &, const float *coefficients, float *out);
    void (*leave_one_out)(const Particles &, const float *records, std::int64_t half, const Entries &,
                          const float *factors, bool change, float *gains);
    void (*insert)(const Particles &, const Entries &, const float *weights, std::int64_t half, float *out);
    void (*backproject)(const Particles &, const float *z, std::int64_t moments, const float *q, std::int64_t weights,
                        std::int64_t half, std::int64_t length, float *out);
    double (*add_floats)(double *total, float *addend, std::int64_t n, double shift, bool clear);
    double (*add_doubles)(double *total, double *addend, std::int64_t n, double shift, bool clear);
    void (*posteriors)(const float *linear, const float *gram, std::int64_t n, std::int64_t latents, double *mean,
                       double *covariance);
    void (*moment_weights)(const double *mean, const double *covariance, std::int64_t n, std::int64_t latents,
                           std::int64_t fixed, const double *transform, float *first, float *second);
    void (*marginals)(const float *linear, const float *gram, std::int64_t n, std::int64_t latents, std::int64_t fixed,
                      double breadth, double *reduced, double *precision, double *rest, double *pull,
                      double *evidence);
};

extern const Kernels kernels_baseline;
#ifdef HPCSORT_X86
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

}  // namespace hpcsort
