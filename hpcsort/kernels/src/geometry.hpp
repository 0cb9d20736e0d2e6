// Where a block of pixels falls in a half volume, worked out for the whole block before any voxel is touched:
// the loops over voxels then know their addresses far ahead and can prefetch them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.hpp"
#include "line.hpp"

namespace {

using hpcsort::Particles;

using hpcsort::BLOCK;
constexpr int AHEAD = 12;  // pixels between a prefetch and its use

struct Grid {
    std::int32_t half, row, slab;  // row and slab: voxels from one y, one z to the next
    explicit HPCSORT_INLINE Grid(std::int64_t h)
        : half(static_cast<std::int32_t>(h)), row(half + 1), slab((2 * half + 1) * (half + 1)) {}
};

struct Block {
    int count;
    alignas(64) std::int32_t corner[BLOCK];  // voxel at the floor of the point
    alignas(64) float fx[BLOCK];
    alignas(64) float w00[BLOCK], w01[BLOCK], w10[BLOCK], w11[BLOCK];  // weight of (z, y) offsets
    alignas(64) float sign[BLOCK];  // -1 where the Friedel mate is the one stored
    alignas(64) float re[BLOCK], im[BLOCK];
    alignas(64) float ctf[BLOCK];

    HPCSORT_INLINE void locate(const Particles &s, std::int64_t particle, std::int64_t first, const Grid &grid) {
        const std::int64_t left = s.pixels - first;
        count = left < BLOCK ? static_cast<int>(left) : BLOCK;
        const float *a = s.rotations + 9 * s.row(particle);
        const float ax = s.pad * a[0], ay = s.pad * a[1], az = s.pad * a[2];
        const float bx = s.pad * a[3], by = s.pad * a[4], bz = s.pad * a[5];
        const float *px = s.px + first, *py = s.py + first;
        const float shift = static_cast<float>(grid.half);
        const std::int32_t row = grid.row, slab = grid.slab;
#pragma omp simd
        for (int j = 0; j < BLOCK; ++j) {
            const float x = ax * px[j] + bx * py[j];
            const float y = ay * px[j] + by * py[j];
            const float z = az * px[j] + bz * py[j];
            const float f = x < 0 ? -1.0f : 1.0f;
            // Conversion truncates; the shift makes y and z positive, so that truncation is the floor.
            const std::int32_t ix = static_cast<std::int32_t>(f * x);
            const std::int32_t iy = static_cast<std::int32_t>(f * y + shift);
            const std::int32_t iz = static_cast<std::int32_t>(f * z + shift);
            const float gy = f * y - (static_cast<float>(iy) - shift);
            const float gz = f * z - (static_cast<float>(iz) - shift);
            fx[j] = f * x - static_cast<float>(ix);
            corner[j] = iz * slab + iy * row + ix;
            w11[j] = gz * gy;
            w10[j] = gz - gz * gy;
            w01[j] = gy - gz * gy;
            w00[j] = (1.0f - gz) - (gy - gz * gy);
            sign[j] = f;
        }
    }

    // Read the data of the block, conjugated where the point was flipped, and ask for those of the next block.
    template <bool SCALE>
    HPCSORT_INLINE void read(const Particles &s, std::int64_t particle, std::int64_t first) {
        const std::int64_t start = s.row(particle) * s.pixels + first;
        const float *image = s.images + 2 * start;
        const float *c = s.ctfs + start;
        for (int j = 0; j < 2 * BLOCK; j += 16) __builtin_prefetch(image + 2 * BLOCK + j);
        for (int j = 0; j < BLOCK; j += 16) __builtin_prefetch(c + BLOCK + j);
        // A constant length spares full blocks the prologues and remainders of vector loops.
        if (count == BLOCK) {
            read_pixels<SCALE>(image, c, BLOCK);
        } else {
            read_pixels<SCALE>(image, c, count);
        }
    }

    // SCALE folds the CTF into the weights: sections then come out as predictions.
    template <bool SCALE>
    HPCSORT_INLINE void read_pixels(const float *image, const float *c, int length) {
#pragma omp simd
        for (int j = 0; j < length; ++j) {
            re[j] = image[2 * j];
            im[j] = sign[j] * image[2 * j + 1];
            ctf[j] = c[j];
        }
        if (!SCALE) return;
#pragma omp simd
        for (int j = 0; j < length; ++j) {
            w00[j] *= ctf[j];
            w01[j] *= ctf[j];
            w10[j] *= ctf[j];
            w11[j] *= ctf[j];
        }
    }
};

// Addresses of voxels with `stride` floats each.
struct Voxels {
    std::size_t stride, row, slab;
    bool far;  // for nearer volumes prefetching only costs
    HPCSORT_INLINE Voxels(const Grid &grid, std::size_t floats)
        : stride(floats),
          row(floats * grid.row),
          slab(floats * static_cast<std::size_t>(grid.slab)),
          far(slab * (2 * grid.half + 1) * sizeof(float) > hpcsort::near_bytes) {}

    // First pixel of a block of `count` for which nothing is prefetched any more.
    HPCSORT_INLINE int prefetch_end(int count) const { return far ? count - AHEAD : 0; }

    // Bring the rows of a pixel's corners towards the core: `floats` from each of the two voxels of a row.
    template <int WRITE>
    HPCSORT_INLINE void prefetch(const float *p, int floats) const {
        const std::size_t rows[4] = {0, row, slab, slab + row};
        for (std::size_t r : rows) {
            for (int f = 0; f < floats; f += 16) {
                __builtin_prefetch(p + r + f, WRITE, 3);
                __builtin_prefetch(p + r + f + stride, WRITE, 3);
            }
        }
    }

    HPCSORT_INLINE void prefetch_start(const Block &b, const float *p, int floats) const {
        for (int j = 0; far && j < b.count && j < AHEAD; ++j) prefetch<0>(p + stride * b.corner[j], floats);
    }

    // Trilinear value of F floats per voxel at pixel j of a block.
    template <int F>
    HPCSORT_INLINE Line<F> interpolate(const float *p, const Block &b, int j) const {
        const float *q = p + slab;
        Line<F> low = b.w00[j] * Line<F>::load(p), high = b.w00[j] * Line<F>::load(p + stride);
        low.add(b.w01[j], Line<F>::load(p + row));
        high.add(b.w01[j], Line<F>::load(p + row + stride));
        low.add(b.w10[j], Line<F>::load(q));
        high.add(b.w10[j], Line<F>::load(q + stride));
        low.add(b.w11[j], Line<F>::load(q + row));
        high.add(b.w11[j], Line<F>::load(q + row + stride));
        low.add(b.fx[j], high - low);
        return low;
    }
};

}  // namespace
