// What one core can do at most: multiply-adds in registers, reading and copying at every level of the memory.
// Compiled by _ceilings.py for the processor it runs on.
#include <cstddef>
#include <cstdint>

namespace {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
constexpr int CHAINS = 12;  // independent sums: enough to hide the latency of two units, few enough for 16 registers

template <class T>
double multiply_add(std::int64_t rounds) {
    typedef T Vector __attribute__((vector_size(BYTES)));
    Vector sums[CHAINS], factor = {}, addend = {};
    for (int c = 0; c < CHAINS; ++c) sums[c] = Vector{} + T(c);
    factor += T(0.999);
    addend += T(0.001);
    for (std::int64_t r = 0; r < rounds; ++r) {
        // Unknown to the compiler, or it would work the loop out.
        __asm__ volatile("" : "+x"(factor), "+x"(addend));
        for (int c = 0; c < CHAINS; ++c) sums[c] = sums[c] * factor + addend;
    }
    double total = 0;
    for (int c = 0; c < CHAINS; ++c) {
        for (std::size_t e = 0; e < BYTES / sizeof(T); ++e) total += sums[c][e];
    }
    return total;
}

typedef std::uint64_t Line __attribute__((vector_size(BYTES), may_alias));

}  // namespace

extern "C" {

// Floating point operations of a round of multiply_add.
std::int64_t operations(std::int64_t bytes_per_number) { return 2 * CHAINS * BYTES / bytes_per_number; }

double multiply_add_single(std::int64_t rounds) { return multiply_add<float>(rounds); }

double multiply_add_double(std::int64_t rounds) { return multiply_add<double>(rounds); }

// Reads `bytes` (a multiple of 512) `rounds` times; bits are joined, which is the fastest use of what was read.
std::uint64_t read_memory(const void *data, std::int64_t bytes, std::int64_t rounds) {
    const Line *lines = static_cast<const Line *>(data);
    Line all = {};
    for (std::int64_t r = 0; r < rounds; ++r) {
        __asm__ volatile("" ::: "memory");
        Line sums[8] = {};
        for (std::int64_t i = 0; i < bytes / BYTES; i += 8) {
            for (int c = 0; c < 8; ++c) sums[c] |= lines[i + c];
        }
        for (const Line &sum : sums) all |= sum;
    }
    return all[0] | all[BYTES / 8 - 1];
}

// Reads as many lines as `bytes` (a power of two) holds, at places that no prefetching foresees, `rounds` times.
std::uint64_t read_scattered(const void *data, std::int64_t bytes, std::int64_t rounds) {
    const Line *lines = static_cast<const Line *>(data);
    const std::uint64_t mask = bytes / BYTES - 1;
    Line all = {};
    std::uint64_t places[4] = {1, 3, 5, 7};
    for (std::int64_t i = 0; i < rounds * (bytes / BYTES); i += 4) {
        for (std::uint64_t &place : places) {
            place = place * 6364136223846793005u + 1442695040888963407u;
            all |= lines[(place >> 30) & mask];
        }
    }
    return all[0] | all[BYTES / 8 - 1];
}

// Copies `bytes` (a multiple of 512) `rounds` times.
void copy_memory(const void *from, void *to, std::int64_t bytes, std::int64_t rounds) {
    const Line *source = static_cast<const Line *>(from);
    Line *target = static_cast<Line *>(to);
    for (std::int64_t r = 0; r < rounds; ++r) {
        __asm__ volatile("" ::: "memory");
        for (std::int64_t i = 0; i < bytes / BYTES; i += 8) {
            for (int c = 0; c < 8; ++c) target[i + c] = source[i + c];
        }
    }
}
}
