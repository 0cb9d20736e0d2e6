// Kernels that add particles to volumes.
#pragma once

#include "geometry.hpp"
#include "scratch.hpp"

namespace {

// What a pixel adds at a corner of weight one, as records (re, im, weight, 0), times `weight`.
HPCSORT_INLINE void fill_records(const Block &b, float weight, float *values) {
    for (int j = 0; j < b.count; ++j) {
        const float c = weight * b.ctf[j];
        values[4 * j] = c * b.re[j];
        values[4 * j + 1] = c * b.im[j];
        values[4 * j + 2] = c * b.ctf[j];
        values[4 * j + 3] = 0;
    }
}

// Adds records to the eight corners of every pixel. Records are added one by one as 16 bytes: two at once would be
// read back by the next pixel across the border of two earlier stores, which stalls. NOTE sees every record
// before it changes.
template <class NOTE>
HPCSORT_INLINE void add_records(const Block &b, const float *values, const Voxels &voxels, float *volume, NOTE note) {
    const int end = voxels.prefetch_end(b.count);
    for (int j = 0; j < b.count; ++j) {
        if (j < end) {
            const float *next = volume + voxels.stride * b.corner[j + AHEAD];
            __builtin_prefetch(next, 1);
            __builtin_prefetch(next + voxels.row, 1);
            __builtin_prefetch(next + voxels.slab, 1);
            __builtin_prefetch(next + voxels.slab + voxels.row, 1);
        }
        float *p = volume + voxels.stride * b.corner[j];
        float *const rows[4] = {p, p + voxels.row, p + voxels.slab, p + voxels.slab + voxels.row};
        const float weights[4] = {b.w00[j], b.w01[j], b.w10[j], b.w11[j]};
        const Line<4> value = Line<4>::load(values + 4 * j), high = b.fx[j] * value, low = value - high;
        for (int r = 0; r < 4; ++r) {
            note(rows[r]);
            note(rows[r] + voxels.stride);
            Line<4> first = Line<4>::load(rows[r]), second = Line<4>::load(rows[r] + voxels.stride);
            first.add(weights[r], low);
            second.add(weights[r], high);
            first.store(rows[r]);
            second.store(rows[r] + voxels.stride);
        }
    }
}

void insert(const Particles &s, const hpcsort::Entries &entries, const float *weights, std::int64_t half, float *out) {
    const Grid grid(half);
    const Voxels voxels(grid, 4);
    const std::size_t volume = voxels.slab * (2 * half + 1);
    alignas(64) float values[4 * BLOCK];
    ByClass sorted(entries);
    Block b;
    for (std::int64_t t = 0; t < sorted.size; ++t) {
        const std::int64_t entry = sorted.order[t], i = sorted.particle(entry);
        for (std::int64_t first = 0; first < s.pixels; first += BLOCK) {
            b.locate(s, i, first, grid);
            b.read<false>(s, i, first);
            fill_records(b, weights[entry], values);
            add_records(b, values, voxels, out + volume * entries.labels[entry], [](const float *) {});
        }
    }
}

// The sections of GROUP particles as one sparse volume of short records. Neighbouring pixels share corners, and so do
// particles of neighbouring view directions: the long records then are read and written far less often than there are
// corners. A voxel holds GROUP times (sum t c re, sum t c im, sum t c^2, 0).
constexpr int GROUP = 2;  // more share more voxels, but multiply more zeros

struct Sections {
    Scratch<float> records;
    Scratch<std::int32_t> stamps, touched;  // the group that touched a voxel last; the voxels of this group
    std::size_t size = 0;
    std::int32_t group = 0;
    explicit Sections(std::size_t voxels) : records(4 * GROUP * voxels), stamps(voxels), touched(voxels + 1) {}

    void start() {
        size = 0;
        ++group;
    }

    HPCSORT_INLINE void add(const Block &b, const Voxels &voxels, int slot) {
        alignas(64) float values[4 * BLOCK];
        fill_records(b, 1.0f, values);
        float *data = records.data + 4 * slot;
        std::int32_t *list = touched.data, *seen = stamps.data;
        const std::int32_t now = group;
        std::size_t n = size;
        add_records(b, values, voxels, data, [&](const float *record) {
            const std::size_t voxel = static_cast<std::size_t>(record - data) / (4 * GROUP);
            list[n] = static_cast<std::int32_t>(voxel);
            n += seen[voxel] != now;
            seen[voxel] = now;
        });
        size = n;
    }
};

// A long record is the sum over the group of re * (z|0|0) + im * (0|z|0) + weight * (0|0|q); `factors` holds the three
// vectors of each particle. The first `data` floats need the first two, the others the third.
HPCSORT_INLINE void add_long_record(float *record, const float *factors, std::int64_t length, std::int64_t data,
                                    float *target) {
    constexpr int F = NATIVE_FLOATS;
    std::int64_t f = 0;
    for (; f < data; f += F) {
        Line<F> sum = Line<F>::load(target + f);
        for (int g = 0; g < GROUP; ++g) {
            const float *own = factors + 3 * length * g + f;
            sum.add(record[4 * g], Line<F>::load(own));
            sum.add(record[4 * g + 1], Line<F>::load(own + length));
            if (f + F > data) sum.add(record[4 * g + 2], Line<F>::load(own + 2 * length));
        }
        sum.store(target + f);
    }
    for (; f < length; f += F) {
        Line<F> sum = Line<F>::load(target + f);
        for (int g = 0; g < GROUP; ++g) sum.add(record[4 * g + 2], Line<F>::load(factors + (3 * g + 2) * length + f));
        sum.store(target + f);
    }
    for (int g = 0; g < GROUP; ++g) Line<4>::zero().store(record + 4 * g);
}

void backproject(const Particles &s, const float *z, std::int64_t moments, const float *q, std::int64_t weights,
                 std::int64_t half, std::int64_t length, float *out) {
    const Grid grid(half);
    const Voxels voxels(grid, 4 * GROUP);
    Sections sections(static_cast<std::size_t>(grid.slab) * (2 * half + 1));
    Scratch<float> factors(3 * GROUP * length);
    Block b;
    for (std::int64_t start = 0; start < s.n; start += GROUP) {
        sections.start();
        factors.clear();
        for (int g = 0; g < GROUP && start + g < s.n; ++g) {
            const std::int64_t i = start + g;
            float *own = factors.data + 3 * length * g;
            std::memcpy(own, z + i * moments, moments * sizeof(float));
            std::memcpy(own + length + moments, z + i * moments, moments * sizeof(float));
            std::memcpy(own + 2 * length + 2 * moments, q + i * weights, weights * sizeof(float));
            for (std::int64_t first = 0; first < s.pixels; first += BLOCK) {
                b.locate(s, i, first, grid);
                b.read<false>(s, i, first);
                sections.add(b, voxels, g);
            }
        }
        const std::int32_t *touched = sections.touched.data;
        for (std::size_t t = 0; t < sections.size; ++t) {
            if (t + 3 < sections.size) {
                const float *next = out + static_cast<std::size_t>(touched[t + 3]) * length;
                for (std::int64_t f = 0; f < length; f += 16) __builtin_prefetch(next + f, 1);
            }
            add_long_record(sections.records.data + voxels.stride * touched[t], factors.data, length, 2 * moments,
                            out + static_cast<std::size_t>(touched[t]) * length);
        }
    }
}

}  // namespace
