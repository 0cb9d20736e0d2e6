// Kernels that read maps: sections, scores, residuals.
#pragma once

#include "geometry.hpp"
#include "scratch.hpp"

namespace {

using hpcsort::Interleaved;

void extract(const Particles &s, const float *volume, std::int64_t half, float *out) {
    const Grid grid(half);
    const Voxels voxels(grid, 2);
    Block b;
    for (std::int64_t i = 0; i < s.n; ++i) {
        for (std::int64_t first = 0; first < s.pixels; first += BLOCK) {
            b.locate(s, i, first, grid);
            float *target = out + 2 * (i * s.pixels + first);
            for (int j = 0; j < b.count; ++j) {
                const float *p = volume + 2 * static_cast<std::size_t>(b.corner[j]);
                // The two voxels of a row are neighbours: one load brings both complex values.
                Line<4> both = b.w00[j] * Line<4>::load(p);
                both.add(b.w01[j], Line<4>::load(p + voxels.row));
                both.add(b.w10[j], Line<4>::load(p + voxels.slab));
                both.add(b.w11[j], Line<4>::load(p + voxels.slab + voxels.row));
                const auto v = both.v[0];
                target[2 * j] = v[0] + b.fx[j] * (v[2] - v[0]);
                target[2 * j + 1] = b.sign[j] * (v[1] + b.fx[j] * (v[3] - v[1]));
            }
        }
    }
}

// Adds a block to the sums of F neighbouring floats of the voxels. Every lane is multiplied with both the real and the
// imaginary part of the data; which product counts is known only to the caller, and this costs less than a shuffle.
template <int F>
HPCSORT_INLINE void score_block(const Block &b, const float *data, const Voxels &voxels, double *real, double *imag,
                                double *power) {
    Line<F> sum_re = Line<F>::zero(), sum_im = sum_re, sum_power = sum_re;
    voxels.prefetch_start(b, data, F);
    const int end = voxels.prefetch_end(b.count);
    for (int j = 0; j < b.count; ++j) {
        if (j < end) voxels.prefetch<0>(data + voxels.stride * b.corner[j + AHEAD], F);
        const Line<F> value = voxels.interpolate<F>(data + voxels.stride * b.corner[j], b, j);
        sum_re.add(b.re[j], value);
        sum_im.add(b.im[j], value);
        sum_power.add(value, value);
    }
    sum_re.add_to(real);
    sum_im.add_to(imag);
    sum_power.add_to(power);
}

void score(const Particles &s, const Interleaved &maps, float *cross, float *power) {
    const Grid grid(maps.half);
    const std::size_t floats = 2 * maps.lanes;
    const Voxels voxels(grid, floats);
    Scratch<double> totals(3 * floats);
    double *real = totals.data, *imag = real + floats, *square = imag + floats;
    Block b;
    for (std::int64_t i = 0; i < s.n; ++i) {
        totals.clear();
        for (std::int64_t first = 0; first < s.pixels; first += BLOCK) {
            b.locate(s, i, first, grid);
            b.read<true>(s, i, first);
            if (floats == 8) {
                score_block<8>(b, maps.data, voxels, real, imag, square);
                continue;
            }
            std::size_t f = 0;
            if (NATIVE_FLOATS == 16) {
                for (; f + 32 <= floats; f += 32)
                    score_block<32>(b, maps.data + f, voxels, real + f, imag + f, square + f);
            }
            for (; f < floats; f += 16) score_block<16>(b, maps.data + f, voxels, real + f, imag + f, square + f);
        }
        for (std::int64_t k = 0; k < maps.count; ++k) {
            cross[i * maps.count + k] = static_cast<float>(real[k] + imag[maps.lanes + k]);
            power[i * maps.count + k] = static_cast<float>(square[k] + square[maps.lanes + k]);
        }
    }
}

// H neighbouring floats as the sums of every fourth.
template <int H>
HPCSORT_INLINE Line<4> folded(const float *lanes) {
    Line<4> sum = Line<4>::load(lanes);
    for (int f = 4; f < H; f += 4) sum.add(1.0f, Line<4>::load(lanes + f));
    return sum;
}

// F lanes at a time; COMPACT: the voxel has no more, and real and imaginary parts share registers. The last four sums of
// real and imaginary parts wait until they can be added for many pixels at once.
template <int F, bool COMPACT>
HPCSORT_INLINE void subtract_block(const Block &b, const float *data, std::size_t lanes, const Voxels &voxels,
                                   const float *coefficients, float *out) {
    alignas(64) float parts[8 * BLOCK];
    const int end = voxels.prefetch_end(b.count);
    for (int j = 0; j < b.count; ++j) {
        if (j < end) voxels.prefetch<0>(data + voxels.stride * b.corner[j + AHEAD], 2 * lanes);
        const float *p = data + voxels.stride * b.corner[j];
        alignas(64) float sums[2 * F];
        if (COMPACT) {
            Line<2 * F> both = Line<2 * F>::zero();
            both.add(Line<2 * F>::load(coefficients), voxels.interpolate<2 * F>(p, b, j));
            both.store(sums);
        } else {
            Line<F> re = Line<F>::zero(), im = re;
            for (std::size_t f = 0; f < lanes; f += F) {
                const Line<F> coefficient = Line<F>::load(coefficients + f);
                re.add(coefficient, voxels.interpolate<F>(p + f, b, j));
                im.add(coefficient, voxels.interpolate<F>(p + lanes + f, b, j));
            }
            re.store(sums);
            im.store(sums + F);
        }
        folded<F>(sums).store(parts + 8 * j);
        folded<F>(sums + F).store(parts + 8 * j + 4);
    }
#pragma omp simd
    for (int j = 0; j < b.count; ++j) {
        const float *p = parts + 8 * j;
        out[2 * j] = b.re[j] - ((p[0] + p[1]) + (p[2] + p[3]));
        out[2 * j + 1] = b.sign[j] * (b.im[j] - ((p[4] + p[5]) + (p[6] + p[7])));
    }
}

void subtract(const Particles &s, const Interleaved &maps, const float *coefficients, float *out) {
    const Grid grid(maps.half);
    const std::size_t lanes = maps.lanes;
    const Voxels voxels(grid, 2 * lanes);
    Scratch<float> own(2 * lanes);
    Block b;
    for (std::int64_t i = 0; i < s.n; ++i) {
        std::memcpy(own.data, coefficients + i * maps.count, maps.count * sizeof(float));
        std::memcpy(own.data + lanes, own.data, lanes * sizeof(float));
        for (std::int64_t first = 0; first < s.pixels; first += BLOCK) {
            b.locate(s, i, first, grid);
            b.read<true>(s, i, first);
            float *target = out + 2 * (i * s.pixels + first);
            if (lanes == 4) {
                subtract_block<4, true>(b, maps.data, lanes, voxels, own.data, target);
            } else if (lanes == 8) {
                subtract_block<8, true>(b, maps.data, lanes, voxels, own.data, target);
            } else if (lanes % 16 == 0) {
                subtract_block<16, false>(b, maps.data, lanes, voxels, own.data, target);
            } else {
                subtract_block<8, false>(b, maps.data, lanes, voxels, own.data, target);
            }
        }
    }
}

// CHANGE: how the gain differs from that with the own contribution left in.
template <bool CHANGE>
HPCSORT_INLINE void leave_out(const Particles &s, const float *records, std::int64_t half,
                              const hpcsort::Entries &entries, const float *factors, float *gains) {
    const Grid grid(half);
    const Voxels voxels(grid, 4);
    const std::size_t volume = voxels.slab * (2 * half + 1);
    alignas(64) float re[BLOCK], im[BLOCK], ridge[BLOCK];
    Block b;
    for (std::int64_t t = 0; t < entries.n; ++t) gains[t] = 0;
    ByClass sorted(entries);
    for (std::int64_t t = 0; t < sorted.size; ++t) {
        const std::int64_t entry = sorted.order[t], i = sorted.particle(entry);
        const float *own = records + volume * entries.labels[entry];
        double total = 0;
        for (std::int64_t first = 0; first < s.pixels; first += BLOCK) {
            b.locate(s, i, first, grid);
            b.read<false>(s, i, first);
            const int end = voxels.prefetch_end(b.count);
            for (int j = 0; j < b.count; ++j) {
                if (j < end) {
                    const float *next = own + 4 * static_cast<std::size_t>(b.corner[j + AHEAD]);
                    __builtin_prefetch(next);
                    __builtin_prefetch(next + voxels.row);
                    __builtin_prefetch(next + voxels.slab);
                    __builtin_prefetch(next + voxels.slab + voxels.row);
                }
                const float *p = own + 4 * static_cast<std::size_t>(b.corner[j]);
                const float *rows[4] = {p, p + voxels.row, p + voxels.slab, p + voxels.slab + voxels.row};
                const float weights[4] = {b.w00[j], b.w01[j], b.w10[j], b.w11[j]};
                Line<8> value = Line<8>::zero(), squared = value;
                for (int r = 0; r < 4; ++r) {
                    const Line<8> both = Line<8>::load(rows[r]);
                    value.add(weights[r], both);
                    squared.add(weights[r] * weights[r], both);
                }
                alignas(32) float v[8], t[8];
                value.store(v);
                squared.store(t);
                const float fx = b.fx[j], gx = 1.0f - fx;
                re[j] = gx * v[0] + fx * v[4];
                im[j] = gx * v[1] + fx * v[5];
                ridge[j] = gx * gx * t[2] + fx * fx * t[6];
            }
            float gain = 0;
#pragma omp simd reduction(+ : gain)
            for (int j = 0; j < b.count; ++j) {
                const float c = b.ctf[j], h = factors[entry] * c * c * ridge[j];
                const float scale = 1.0f / (1.0f - (h < 0.9f ? h : 0.9f));
                const float dr = b.re[j] - c * re[j], di = b.im[j] - c * im[j];
                const float start = CHANGE ? dr * dr + di * di : b.re[j] * b.re[j] + b.im[j] * b.im[j];
                gain += start - scale * scale * (dr * dr + di * di);
            }
            total += gain;
        }
        gains[entry] = static_cast<float>(total);
    }
}

void leave_one_out(const Particles &s, const float *records, std::int64_t half, const hpcsort::Entries &entries,
                   const float *factors, bool change, float *gains) {
    if (change) {
        leave_out<true>(s, records, half, entries, factors, gains);
    } else {
        leave_out<false>(s, records, half, entries, factors, gains);
    }
}

}  // namespace
