// Sums whose bits do not depend on the order of the addends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#include "line.hpp"

namespace {

constexpr int NATIVE_DOUBLES = NATIVE_FLOATS / 2;
typedef double Doubles __attribute__((vector_size(8 * NATIVE_DOUBLES)));
typedef std::int64_t Bits __attribute__((vector_size(8 * NATIVE_DOUBLES)));

template <class T>
struct Packed;
template <>
struct Packed<float> {
    typedef float type __attribute__((vector_size(4 * NATIVE_DOUBLES), aligned(1), may_alias));
};
template <>
struct Packed<double> {
    typedef double type __attribute__((vector_size(8 * NATIVE_DOUBLES), aligned(1), may_alias));
};

template <class T>
HPCSORT_INLINE Doubles load_doubles(const T *p) {
    return __builtin_convertvector(*reinterpret_cast<const typename Packed<T>::type *>(p), Doubles);
}
#if defined(__AVX512F__)  // GCC converts in halves
HPCSORT_INLINE Doubles load_doubles(const float *p) {
    return reinterpret_cast<Doubles>(_mm512_cvtps_pd(_mm256_loadu_ps(p)));
}
#elif defined(__AVX__)
HPCSORT_INLINE Doubles load_doubles(const float *p) {
    return reinterpret_cast<Doubles>(_mm256_cvtps_pd(_mm_loadu_ps(p)));
}
#endif

// Adds NATIVE_DOUBLES elements. The sum with the shift loses the bits below the quantum; nothing here is a product, so
// that no contraction to multiply-adds can keep them. Bit patterns of absolute values order like the values, with NaN
// on top: the integer maximum, unlike that of doubles, lets NaN win on every instruction set.
template <class T>
HPCSORT_INLINE void add_vector(double *total, const T *addend, double shift, Bits &peak) {
    const Doubles x = load_doubles(addend);
    const Doubles sum = load_doubles(total) + ((x + shift) - shift);
    *reinterpret_cast<Packed<double>::type *>(total) = sum;
    const Bits magnitude = reinterpret_cast<Bits>(sum) & INT64_MAX & reinterpret_cast<Bits>(x != 0.0);
    peak = magnitude > peak ? magnitude : peak;
}

// Are the LENGTH elements all +0? Mostly the first two tell.
template <int LENGTH, class T>
HPCSORT_INLINE bool is_clear(const T *addend) {
    typedef std::uint64_t Word __attribute__((aligned(1), may_alias));
    const Word *words = reinterpret_cast<const Word *>(addend);
    if (words[0]) return false;
    std::uint64_t any = 0;
    for (std::size_t k = 1; k < LENGTH * sizeof(T) / 8; ++k) any |= words[k];
    return any == 0;
}

// Much of a half volume is zero: outside the band always, and where no section of the few added ones passes. There the
// total is neither read nor written, which is four fifths of the memory traffic.
template <class T>
double add_rounded(double *total, T *addend, std::int64_t n, double shift, bool clear) {
    constexpr int GROUP = 16;
    Bits peak{};
    std::int64_t i = 0;
    for (; i + GROUP <= n; i += GROUP) {
        if (is_clear<GROUP>(addend + i)) continue;
        for (int k = 0; k < GROUP; k += NATIVE_DOUBLES) add_vector(total + i + k, addend + i + k, shift, peak);
        if (clear) std::memset(addend + i, 0, GROUP * sizeof(T));
    }
    if (i < n) {
        const std::size_t left = static_cast<std::size_t>(n - i);
        double last[GROUP] = {};
        T own[GROUP] = {};
        std::memcpy(last, total + i, left * sizeof(double));
        std::memcpy(own, addend + i, left * sizeof(T));
        for (int k = 0; k < GROUP; k += NATIVE_DOUBLES) add_vector(last + k, own + k, shift, peak);
        std::memcpy(total + i, last, left * sizeof(double));
        if (clear) std::memset(addend + i, 0, left * sizeof(T));
    }
    std::int64_t most = 0;
    for (int k = 0; k < NATIVE_DOUBLES; ++k) most = peak[k] > most ? peak[k] : most;
    double value;
    std::memcpy(&value, &most, sizeof value);
    return value;
}

}  // namespace
