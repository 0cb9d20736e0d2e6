// Normal equations of particles in a basis of maps.
#pragma once

#include "geometry.hpp"
#include "scratch.hpp"

namespace {

using hpcsort::Interleaved;

// Predictions of a block: row 2 j holds the real parts of pixel j in all maps, row 2 j + 1 the imaginary parts.
template <int F>
HPCSORT_INLINE void fill_rows(const Block &b, const float *data, const Voxels &voxels, float *rows) {
    voxels.prefetch_start(b, data, F);
    const int end = voxels.prefetch_end(b.count);
    for (int j = 0; j < b.count; ++j) {
        if (j < end) voxels.prefetch<0>(data + voxels.stride * b.corner[j + AHEAD], F);
        voxels.interpolate<F>(data + voxels.stride * b.corner[j], b, j).store(rows + voxels.stride * j);
    }
}

// gram[a][c] += sum over rows of row[a] row[c] for T values a and F values c.
template <int T, int F>
HPCSORT_INLINE void product_tile(const float *rows, int count, std::size_t lanes, std::size_t a, std::size_t c,
                                 std::size_t stride, double *gram) {
    Line<F> sums[T];
    for (int t = 0; t < T; ++t) sums[t] = Line<F>::zero();
    const float *left = rows + a, *right = rows + c;
    for (int r = 0; r < count; ++r, left += lanes, right += lanes) {
        const Line<F> value = Line<F>::load(right);
        for (int t = 0; t < T; ++t) sums[t].add(left[t], value);
    }
    for (int t = 0; t < T; ++t) sums[t].add_to(gram + (a + t) * stride + c);
}

// linear[c] += sum over pixels of re row[2 j][c] + im row[2 j + 1][c].
template <int F>
HPCSORT_INLINE void product_data(const Block &b, const float *rows, std::size_t lanes, std::size_t c, double *linear) {
    Line<F> sum_re = Line<F>::zero(), sum_im = sum_re;
    for (int j = 0; j < b.count; ++j) {
        sum_re.add(b.re[j], Line<F>::load(rows + 2 * j * lanes + c));
        sum_im.add(b.im[j], Line<F>::load(rows + (2 * j + 1) * lanes + c));
    }
    sum_re.add_to(linear + c);
    sum_im.add_to(linear + c);
}

// Products of the first `count` lanes, in tiles of T values against F values; tiles above the diagonal are left out.
template <int F>
HPCSORT_INLINE void products(const Block &b, const float *rows, std::size_t lanes, std::size_t count,
                             std::size_t stride, double *linear, double *gram) {
    constexpr std::size_t MOST = F == 16 ? 16 : 8;
    for (std::size_t c = 0; c < count; c += F) {
        product_data<F>(b, rows, lanes, c, linear);
        for (std::size_t a = c; a < count; a += MOST) {
            const std::size_t left = count - a;
            const int length = 2 * b.count;
            if (MOST == 16 && left > 12) {
                product_tile<16, F>(rows, length, lanes, a, c, stride, gram);
            } else if (MOST == 16 && left > 8) {
                product_tile<12, F>(rows, length, lanes, a, c, stride, gram);
            } else if (left > 4) {
                product_tile<8, F>(rows, length, lanes, a, c, stride, gram);
            } else {
                product_tile<4, F>(rows, length, lanes, a, c, stride, gram);
            }
        }
    }
}

void moments(const Particles &s, const Interleaved &maps, float *linear, float *gram) {
    const Grid grid(maps.half);
    const std::size_t lanes = maps.lanes, count = maps.count, packed = count * (count + 1) / 2;
    const Voxels voxels(grid, 2 * lanes);
    // Lanes are taken in full registers: the last row may be read, and sums written, beyond them.
    const std::size_t stride = lanes + 8;
    Scratch<float> rows(2 * BLOCK * lanes + 16);
    Scratch<double> totals(stride * (lanes + 1) + 16);
    double *second_order = totals.data, *first_order = second_order + stride * lanes;
    Block b;
    for (std::int64_t i = 0; i < s.n; ++i) {
        totals.clear();
        for (std::int64_t first = 0; first < s.pixels; first += BLOCK) {
            b.locate(s, i, first, grid);
            b.read<true>(s, i, first);
            if (lanes == 4) {
                fill_rows<8>(b, maps.data, voxels, rows.data);
                products<4>(b, rows.data, lanes, count, stride, first_order, second_order);
                continue;
            }
            std::size_t f = 0;
            for (; f + 32 <= 2 * lanes; f += 32) fill_rows<32>(b, maps.data + f, voxels, rows.data + f);
            for (; f < 2 * lanes; f += 16) fill_rows<16>(b, maps.data + f, voxels, rows.data + f);
            if (NATIVE_FLOATS == 16 && lanes > 8) {
                products<16>(b, rows.data, lanes, count, stride, first_order, second_order);
            } else {
                products<8>(b, rows.data, lanes, count, stride, first_order, second_order);
            }
        }
        for (std::size_t a = 0; a < count; ++a) {
            linear[i * count + a] = static_cast<float>(first_order[a]);
            for (std::size_t c = 0; c <= a; ++c) {
                gram[i * packed + a * (a + 1) / 2 + c] = static_cast<float>(second_order[a * stride + c]);
            }
        }
    }
}

}  // namespace
