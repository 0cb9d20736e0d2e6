// Kernels that add particles to volumes.
#pragma once

#include "read_kernels.hpp"

namespace {

// What a pixel adds at a corner of weight one, as records (re, im, weight, LAST), times `weight`.
HPCSORT_INLINE void fill_records(const Block &b, float weight, float last, float *values) {
    for (int j = 0; j < b.count; ++j) {
        const float c = weight * b.ctf[j];
        values[4 * j] = c * b.re[j];
        values[4 * j + 1] = c * b.im[j];
        values[4 * j + 2] = c * b.ctf[j];
        values[4 * j + 3] = last;
    }
}

// Adds records to the eight corners of every pixel. Records are added one by one as 16 bytes: two at once would be
// read back by the next pixel across the border of two earlier stores, which stalls. NOTE sees every record
// before it changes.
template <class NOTE>
HPCSORT_INLINE void add_records(const Block &b, const float *values, const Voxels &voxels, float *volume, NOTE note) {
    for (int j = 0; j < b.count; ++j) {
        if (j + AHEAD < b.count) {
            const float *next = volume + 4 * static_cast<std::size_t>(b.corner[j + AHEAD]);
            __builtin_prefetch(next, 1);
            __builtin_prefetch(next + voxels.row, 1);
            __builtin_prefetch(next + voxels.slab, 1);
            __builtin_prefetch(next + voxels.slab + voxels.row, 1);
        }
        float *p = volume + 4 * static_cast<std::size_t>(b.corner[j]);
        float *const rows[4] = {p, p + voxels.row, p + voxels.slab, p + voxels.slab + voxels.row};
        const float weights[4] = {b.w00[j], b.w01[j], b.w10[j], b.w11[j]};
        const Line<4> value = Line<4>::load(values + 4 * j), high = b.fx[j] * value, low = value - high;
        for (int r = 0; r < 4; ++r) {
            note(rows[r]);
            note(rows[r] + 4);
            Line<4> first = Line<4>::load(rows[r]), second = Line<4>::load(rows[r] + 4);
            first.add(weights[r], low);
            second.add(weights[r], high);
            first.store(rows[r]);
            second.store(rows[r] + 4);
        }
    }
}

void insert(const Particles &s, const std::int32_t *labels, const float *weights, std::int64_t half, float *out) {
    const Grid grid(half);
    const Voxels voxels(grid, 4);
    const std::size_t volume = voxels.slab * (2 * half + 1);
    alignas(64) float values[4 * BLOCK];
    ByClass particles(labels, s.n);
    Block b;
    for (std::int64_t t = 0; t < particles.size; ++t) {
        const std::int64_t i = particles.order[t];
        for (std::int64_t first = 0; first < s.pixels; first += BLOCK) {
            b.locate(s, i, first, grid);
            b.read<false>(s, i, first);
            fill_records(b, weights[i], 0.0f, values);
            add_records(b, values, voxels, out + volume * labels[i], [](const float *) {});
        }
    }
}

// The section of one particle as a sparse volume of records (sum t c re, sum t c im, sum t c^2, sum t): neighbouring
// pixels share corners, so that long records need be added to fewer voxels than there are corners.
struct Section {
    Scratch<float> records;
    Scratch<std::int32_t> touched;
    std::size_t size = 0;
    Section(const Grid &grid, std::int64_t pixels)
        : records(4 * static_cast<std::size_t>(grid.slab) * (2 * grid.half + 1)), touched(8 * pixels + 1) {}

    HPCSORT_INLINE void add(const Block &b, const Voxels &voxels) {
        typedef std::int32_t bits __attribute__((may_alias));
        alignas(64) float values[4 * BLOCK];
        fill_records(b, 1.0f, 1.0f, values);
        std::int32_t *list = touched.data;
        std::size_t n = size;
        // The fourth float is zero exactly where nothing was added yet. A voxel that is met first with weight zero may
        // be listed twice; its second visit then adds zeros.
        const float *data = records.data;
        add_records(b, values, voxels, records.data, [&](const float *record) {
            list[n] = static_cast<std::int32_t>((record - data) / 4);
            n += *reinterpret_cast<const bits *>(record + 3) == 0;
        });
        size = n;
    }
};

void backproject(const Particles &s, const float *z, std::int64_t moments, const float *q, std::int64_t weights,
                 std::int64_t half, std::int64_t record, float *out) {
    constexpr int F = NATIVE_FLOATS;
    const Grid grid(half);
    const Voxels voxels(grid, 4);
    Section section(grid, s.pixels);
    // A record is re * (z|0|0) + im * (0|z|0) + weight * (0|0|q); only its beginning mixes the three.
    Scratch<float> factors(3 * record);
    float *real = factors.data, *imag = real + record, *power = imag + record;
    const std::int64_t mixed = (2 * moments + F - 1) / F * F;
    Block b;
    for (std::int64_t i = 0; i < s.n; ++i) {
        std::memcpy(real, z + i * moments, moments * sizeof(float));
        std::memcpy(imag + moments, z + i * moments, moments * sizeof(float));
        std::memcpy(power + 2 * moments, q + i * weights, weights * sizeof(float));
        section.size = 0;
        for (std::int64_t first = 0; first < s.pixels; first += BLOCK) {
            b.locate(s, i, first, grid);
            b.read<false>(s, i, first);
            section.add(b, voxels);
        }
        for (std::size_t t = 0; t < section.size; ++t) {
            if (t + 4 < section.size) {
                const float *next = out + record * static_cast<std::size_t>(section.touched[t + 4]);
                for (std::int64_t f = 0; f < record; f += 16) __builtin_prefetch(next + f, 1);
            }
            float *source = section.records.data + 4 * static_cast<std::size_t>(section.touched[t]);
            float *target = out + record * static_cast<std::size_t>(section.touched[t]);
            const float re = source[0], im = source[1], weight = source[2];
            Line<4>::zero().store(source);
            for (std::int64_t f = 0; f < mixed; f += F) {
                Line<F> sum = Line<F>::load(target + f);
                sum.add(re, Line<F>::load(real + f));
                sum.add(im, Line<F>::load(imag + f));
                sum.add(weight, Line<F>::load(power + f));
                sum.store(target + f);
            }
            for (std::int64_t f = mixed; f < record; f += F) {
                Line<F> sum = Line<F>::load(target + f);
                sum.add(weight, Line<F>::load(power + f));
                sum.store(target + f);
            }
        }
    }
}

}  // namespace
