// Small dense systems of many particles: eight particles side by side in a vector, one elimination for all of them.
#pragma once

#include <cmath>

#include "line.hpp"
#include "scratch.hpp"

namespace {

constexpr int SIDE = 8;
typedef double Side __attribute__((vector_size(64)));  // one number of each of eight particles

HPCSORT_INLINE std::size_t packed_index(std::size_t row, std::size_t column) { return row * (row + 1) / 2 + column; }

template <class T>
HPCSORT_INLINE void load_side(const T *values, std::size_t length, int particles, Side *out) {
    for (std::size_t e = 0; e < length; ++e) {
        Side value = {};
        for (int l = 0; l < particles; ++l) value[l] = values[l * length + e];
        out[e] = value;
    }
}

template <class T>
HPCSORT_INLINE void store_side(const Side *values, std::size_t length, int particles, T *out) {
    for (std::size_t e = 0; e < length; ++e) {
        for (int l = 0; l < particles; ++l) out[l * length + e] = static_cast<T>(values[e][l]);
    }
}

HPCSORT_INLINE Side root(const Side &value) {
    Side found;
    for (int l = 0; l < SIDE; ++l) found[l] = std::sqrt(value[l]);
    return found;
}

// Cholesky factor of a packed lower triangle, in place; the diagonal then holds the inverse of the factor's.
HPCSORT_INLINE void factorise(Side *matrix, std::size_t size) {
    for (std::size_t j = 0; j < size; ++j) {
        Side *row = matrix + packed_index(j, 0);
        Side sum = row[j];
        for (std::size_t k = 0; k < j; ++k) sum -= row[k] * row[k];
        const Side inverse = 1.0 / root(sum);
        row[j] = inverse;
        for (std::size_t i = j + 1; i < size; ++i) {
            Side *below = matrix + packed_index(i, 0);
            Side value = below[j];
            for (std::size_t k = 0; k < j; ++k) value -= below[k] * row[k];
            below[j] = value * inverse;
        }
    }
}

// vector = L^-1 vector.
HPCSORT_INLINE void solve_lower(const Side *factor, std::size_t size, Side *vector) {
    for (std::size_t i = 0; i < size; ++i) {
        const Side *row = factor + packed_index(i, 0);
        Side value = vector[i];
        for (std::size_t k = 0; k < i; ++k) value -= row[k] * vector[k];
        vector[i] = value * row[i];
    }
}

// vector = L^-T vector.
HPCSORT_INLINE void solve_upper(const Side *factor, std::size_t size, Side *vector) {
    for (std::size_t i = size; i-- > 0;) {
        Side value = vector[i];
        for (std::size_t k = i + 1; k < size; ++k) value -= factor[packed_index(k, i)] * vector[k];
        vector[i] = value * factor[packed_index(i, i)];
    }
}

// Half the logarithm of the determinant, from the inverse diagonal of the factor; products of eight do not overflow.
HPCSORT_INLINE Side half_log_determinant(const Side *factor, std::size_t size) {
    Side total = {};
    for (std::size_t i = 0; i < size;) {
        Side product = factor[packed_index(i, i)];
        for (++i; i % 8 && i < size; ++i) product *= factor[packed_index(i, i)];
        for (int l = 0; l < SIDE; ++l) total[l] -= std::log(product[l]);
    }
    return total;
}

HPCSORT_INLINE Side squared_length(const Side *vector, std::size_t size) {
    Side sum = {};
    for (std::size_t i = 0; i < size; ++i) sum += vector[i] * vector[i];
    return sum;
}

HPCSORT_INLINE int particles_from(std::int64_t i, std::int64_t n) {
    return n - i < SIDE ? static_cast<int>(n - i) : SIDE;
}

// Means and packed covariances of latents of N(0, 1) with joint moments `linear`, `gram`.
void posteriors(const float *linear, const float *gram, std::int64_t n, std::int64_t latents, double *mean,
                double *covariance) {
    const std::size_t size = latents, packed = size * (size + 1) / 2;
    Scratch<Side> memory(2 * packed + 2 * size);
    Side *factor = memory.data, *inverse = factor + packed, *right = inverse + packed, *column = right + size;
    for (std::int64_t i = 0; i < n; i += SIDE) {
        const int particles = particles_from(i, n);
        load_side(gram + i * packed, packed, particles, factor);
        load_side(linear + i * size, size, particles, right);
        for (std::size_t e = 0; e < packed; ++e) factor[e] *= 2.0;
        for (std::size_t a = 0; a < size; ++a) {
            factor[packed_index(a, a)] += 1.0;
            right[a] *= 2.0;
        }
        factorise(factor, size);
        solve_lower(factor, size, right);
        solve_upper(factor, size, right);
        for (std::size_t a = 0; a < size; ++a) {
            // Column a of the inverse; the rows above the diagonal are known already.
            for (std::size_t b = 0; b < size; ++b) column[b] = Side{};
            column[a] += 1.0;
            for (std::size_t b = a; b < size; ++b) {
                const Side *row = factor + packed_index(b, 0);
                Side value = column[b];
                for (std::size_t k = a; k < b; ++k) value -= row[k] * column[k];
                column[b] = value * row[b];
            }
            for (std::size_t b = size; b-- > a;) {
                Side value = column[b];
                for (std::size_t k = b + 1; k < size; ++k) value -= factor[packed_index(k, b)] * column[k];
                column[b] = value * factor[packed_index(b, b)];
                inverse[packed_index(b, a)] = column[b];
            }
        }
        store_side(right, size, particles, mean + i * size);
        store_side(inverse, packed, particles, covariance + i * packed);
    }
}

// First and second moments after a change of basis: latents below `fixed` are scaled, the others mixed.
void moment_weights(const double *mean, const double *covariance, std::int64_t n, std::int64_t latents,
                    std::int64_t still, const double *transform, float *first, float *second) {
    const std::size_t size = latents, fixed = still, free = size - fixed, packed = size * (size + 1) / 2;
    const std::size_t pairs = free * (free + 1) / 2 + free * fixed;
    Scratch<Side> memory(packed + 2 * size + free * size + pairs);
    Side *own = memory.data, *point = own + packed, *moved = point + size, *mixed = moved + size;
    Side *out = mixed + free * size;
    for (std::int64_t i = 0; i < n; i += SIDE) {
        const int particles = particles_from(i, n);
        load_side(covariance + i * packed, packed, particles, own);
        load_side(mean + i * size, size, particles, point);
        for (std::size_t a = 0; a < fixed; ++a) moved[a] = transform[a * size + a] * point[a];
        for (std::size_t j = 0; j < free; ++j) {
            const double *row = transform + (fixed + j) * size + fixed;
            Side sum = {};
            for (std::size_t k = 0; k < free; ++k) sum += row[k] * point[fixed + k];
            moved[fixed + j] = sum;
            // Row j of the mixed latents' covariance with the latents as they were.
            for (std::size_t b = 0; b < size; ++b) {
                Side value = {};
                for (std::size_t k = 0; k < free; ++k) {
                    const std::size_t c = fixed + k;
                    value += row[k] * own[c >= b ? packed_index(c, b) : packed_index(b, c)];
                }
                mixed[j * size + b] = value;
            }
        }
        std::size_t e = 0;
        for (std::size_t j = 0; j < free; ++j) {
            for (std::size_t l = 0; l <= j; ++l, ++e) {
                const double *row = transform + (fixed + l) * size + fixed;
                Side value = moved[fixed + j] * moved[fixed + l];
                for (std::size_t k = 0; k < free; ++k) value += row[k] * mixed[j * size + fixed + k];
                out[e] = value;
            }
        }
        for (std::size_t j = 0; j < free; ++j) {
            for (std::size_t a = 0; a < fixed; ++a, ++e) {
                out[e] = moved[fixed + j] * moved[a] + transform[a * size + a] * mixed[j * size + a];
            }
        }
        store_side(moved + fixed, free, particles, first + i * free);
        store_side(out, pairs, particles, second + i * pairs);
    }
}

// Joint moments with the first `still` latents (N(0, 1)) integrated out.
void marginals(const float *linear, const float *gram, std::int64_t n, std::int64_t latents, std::int64_t still,
               double breadth, double *reduced, double *precision, double *rest, double *pull, double *evidence) {
    const std::size_t size = latents, fixed = still, free = size - fixed;
    const std::size_t packed = size * (size + 1) / 2, lower = free * (free + 1) / 2;
    Scratch<Side> memory(2 * packed + 2 * size + (free + 1) * fixed + lower + free + 2);
    Side *joint = memory.data, *factor = joint + packed, *right = factor + packed, *broad = right + size;
    Side *solved = broad + size, *rest_of = solved + free * fixed, *left = rest_of + fixed, *gain = left + free;
    Side *kept = gain + 2;
    for (std::int64_t i = 0; i < n; i += SIDE) {
        const int particles = particles_from(i, n);
        load_side(gram + i * packed, packed, particles, joint);
        load_side(linear + i * size, size, particles, right);
        // Whitened complex noise has E|n|^2 = 1 per pixel, hence the factor 2 of Re(conj(a) b) in the exponent.
        for (std::size_t e = 0; e < packed; ++e) joint[e] *= 2.0;
        for (std::size_t a = 0; a < size; ++a) right[a] *= 2.0;
        const double variance = breadth * breadth;
        for (std::size_t e = 0; e < packed; ++e) factor[e] = variance * joint[e];
        for (std::size_t a = 0; a < size; ++a) {
            factor[packed_index(a, a)] += 1.0;
            broad[a] = breadth * right[a];
        }
        factorise(factor, size);
        solve_lower(factor, size, broad);
        gain[1] = 0.5 * squared_length(broad, size) - half_log_determinant(factor, size);
        for (std::size_t e = 0; e < fixed * (fixed + 1) / 2; ++e) factor[e] = joint[e];
        for (std::size_t a = 0; a < fixed; ++a) factor[packed_index(a, a)] += 1.0;
        factorise(factor, fixed);
        for (std::size_t a = 0; a < fixed; ++a) rest_of[a] = right[a];
        solve_lower(factor, fixed, rest_of);
        gain[0] = 0.5 * squared_length(rest_of, fixed) - half_log_determinant(factor, fixed);
        for (std::size_t j = 0; j < free; ++j) {
            Side *own = solved + j * fixed;
            for (std::size_t a = 0; a < fixed; ++a) own[a] = joint[packed_index(fixed + j, a)];
            solve_lower(factor, fixed, own);
            Side value = right[fixed + j];
            for (std::size_t a = 0; a < fixed; ++a) value -= own[a] * rest_of[a];
            left[j] = value;
            for (std::size_t l = 0; l <= j; ++l) {
                const Side *other = solved + l * fixed;
                Side sum = joint[packed_index(fixed + j, fixed + l)];
                for (std::size_t a = 0; a < fixed; ++a) sum -= own[a] * other[a];
                kept[packed_index(j, l)] = sum;
            }
        }
        solve_upper(factor, fixed, rest_of);
        for (std::size_t j = 0; j < free; ++j) solve_upper(factor, fixed, solved + j * fixed);
        store_side(left, free, particles, reduced + i * free);
        store_side(kept, lower, particles, precision + i * lower);
        store_side(rest_of, fixed, particles, rest + i * fixed);
        store_side(solved, free * fixed, particles, pull + i * free * fixed);
        store_side(gain, 2, particles, evidence + i * 2);
    }
}

}  // namespace
