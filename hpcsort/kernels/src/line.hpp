// A short run of floats held in registers, as wide as the instruction set of this compilation allows.
// Everything here is force-inlined and lives in an unnamed namespace: the same source is compiled once per instruction
// set, and no copy of one may ever be linked into another.
#pragma once

#define HPCSORT_INLINE inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int NATIVE_FLOATS = 16;
#elif defined(__AVX__)
constexpr int NATIVE_FLOATS = 8;
#else
constexpr int NATIVE_FLOATS = 4;
#endif

template <int W>
struct Native;
template <>
struct Native<4> {
    typedef float type __attribute__((vector_size(16), may_alias));
    typedef float packed __attribute__((vector_size(16), aligned(4), may_alias));
};
template <>
struct Native<8> {
    typedef float type __attribute__((vector_size(32), may_alias));
    typedef float packed __attribute__((vector_size(32), aligned(4), may_alias));
};
template <>
struct Native<16> {
    typedef float type __attribute__((vector_size(64), may_alias));
    typedef float packed __attribute__((vector_size(64), aligned(4), may_alias));
};

template <int FLOATS>
struct Line {
    static constexpr int W = FLOATS < NATIVE_FLOATS ? FLOATS : NATIVE_FLOATS;
    static constexpr int N = FLOATS / W;
    typename Native<W>::type v[N];

    static HPCSORT_INLINE Line load(const float *p) {
        Line r;
        for (int i = 0; i < N; ++i) r.v[i] = *reinterpret_cast<const typename Native<W>::packed *>(p + i * W);
        return r;
    }
    static HPCSORT_INLINE Line zero() {
        Line r;
        for (int i = 0; i < N; ++i) r.v[i] = typename Native<W>::type{};
        return r;
    }
    HPCSORT_INLINE void store(float *p) const {
        for (int i = 0; i < N; ++i) *reinterpret_cast<typename Native<W>::packed *>(p + i * W) = v[i];
    }
    // this += s * a
    HPCSORT_INLINE void add(float s, const Line &a) {
        for (int i = 0; i < N; ++i) v[i] += s * a.v[i];
    }
    HPCSORT_INLINE void add(const Line &a, const Line &b) {
        for (int i = 0; i < N; ++i) v[i] += a.v[i] * b.v[i];
    }
    friend HPCSORT_INLINE Line operator-(const Line &a, const Line &b) {
        Line r;
        for (int i = 0; i < N; ++i) r.v[i] = a.v[i] - b.v[i];
        return r;
    }
    friend HPCSORT_INLINE Line operator*(float s, const Line &a) {
        Line r;
        for (int i = 0; i < N; ++i) r.v[i] = s * a.v[i];
        return r;
    }
    HPCSORT_INLINE void add_to(double *total) const {
        alignas(64) float lanes[FLOATS];
        store(lanes);
#pragma omp simd
        for (int i = 0; i < FLOATS; ++i) total[i] += lanes[i];
    }
};

}  // namespace
