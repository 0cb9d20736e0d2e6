// Working memory of a call, and the order in which particles of several classes are taken.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "kernels.hpp"

namespace {

// Zeroed, 64-byte aligned working memory of one call. std::vector is avoided: an instance compiled here could be linked
// into code that must run on older processors.
template <class T>
struct Scratch {
    T *data;
    std::size_t length, bytes;
    explicit Scratch(std::size_t size) : length(size), bytes((size * sizeof(T) + 127) / 64 * 64) {
        data = static_cast<T *>(std::aligned_alloc(64, bytes));
        if (!data) std::abort();
        clear();
    }
    ~Scratch() { std::free(data); }
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;
    void clear() { std::memset(static_cast<void *>(data), 0, bytes); }
    std::size_t size() const { return length; }
    T &operator[](std::size_t i) { return data[i]; }
};

// Entries class by class, each class in the order given: a class volume then stays in the cache, and as every class
// still sums in the same order, results do not change. Entries with label -1 are left out.
struct ByClass {
    Scratch<std::int64_t> order;
    std::int64_t size;
    const std::int32_t *particles;
    static std::int64_t classes(const std::int32_t *labels, std::int64_t n) {
        std::int64_t most = 0;
        for (std::int64_t i = 0; i < n; ++i) most = labels[i] >= most ? labels[i] + 1 : most;
        return most;
    }
    explicit ByClass(const hpcsort::Entries &entries) : order(entries.n + 1), particles(entries.particles) {
        const std::int32_t *labels = entries.labels;
        const std::int64_t n = entries.n;
        Scratch<std::int64_t> next(classes(labels, n) + 1);
        for (std::int64_t i = 0; i < n; ++i) ++next[labels[i] + 1];
        next[0] = 0;
        for (std::size_t k = 1; k < next.size(); ++k) next[k] += next[k - 1];
        size = n ? next[next.size() - 1] : 0;
        for (std::int64_t i = 0; i < n; ++i) {
            if (labels[i] >= 0) order[next[labels[i]]++] = i;
        }
    }
    std::int64_t particle(std::int64_t entry) const { return particles ? particles[entry] : entry; }
};

}  // namespace
