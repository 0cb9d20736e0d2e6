// The Python module: arrays arrive checked for shape and type by the Python side and leave as pointers.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <unistd.h>

#include <algorithm>
#include <complex>
#include <optional>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace hpcsort;

namespace {

// Bytes of the second-level cache where the system tells; a MiB otherwise and at least.
std::size_t second_level_cache() {
    long size = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
    size = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return static_cast<std::size_t>(std::max(size, 1L << 20));
}

}  // namespace

const std::size_t hpcsort::near_bytes = second_level_cache();

namespace {

template <class T>
using In = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Real = In<float>;
using Complex = In<std::complex<float>>;

const Kernels &choose() {
#ifdef HPCSORT_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma")) {
        return kernels_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kernels_avx2;
#endif
    return kernels_baseline;
}

const Kernels *chosen = &choose();

// The processor's best set is chosen at import; tests and benchmarks may step down to a lesser one.
void use_instruction_set(const std::string &name) {
    [[maybe_unused]] const Kernels &best = choose();
    const Kernels *wanted = nullptr;
    if (name == "baseline") wanted = &kernels_baseline;
#ifdef HPCSORT_X86
    if (name == "avx2" && &best != &kernels_baseline) wanted = &kernels_avx2;
    if (name == "avx512" && &best == &kernels_avx512) wanted = &kernels_avx512;
#endif
    if (!wanted) throw nb::value_error(("instruction set " + name + " is not available here").c_str());
    chosen = wanted;
}

const float *floats(const Complex &a) { return reinterpret_cast<const float *>(a.data()); }
float *floats(const Out<std::complex<float>> &a) { return reinterpret_cast<float *>(a.data()); }

std::int64_t length(std::size_t n) { return static_cast<std::int64_t>(n); }

// Frequencies, filled up with zeros to full blocks.
std::vector<float> padded(const Real &frequencies) {
    std::vector<float> all((frequencies.shape(0) + BLOCK - 1) / BLOCK * BLOCK);
    std::copy(frequencies.data(), frequencies.data() + frequencies.shape(0), all.begin());
    return all;
}

using Rows = std::optional<In<std::int32_t>>;

struct Batch {
    std::vector<float> px, py;
    Particles particles;
    Batch(const Complex *images, const Real *ctfs, const Real &rotations, const Real &x, const Real &y, float pad,
          const Rows &rows = {})
        : px(padded(x)), py(padded(y)), particles{length(rows ? rows->shape(0) : rotations.shape(0)),
                                                  length(x.shape(0)),
                                                  rotations.data(),
                                                  px.data(),
                                                  py.data(),
                                                  pad,
                                                  images ? floats(*images) : nullptr,
                                                  ctfs ? ctfs->data() : nullptr,
                                                  rows ? rows->data() : nullptr} {}
    Batch(const Batch &) = delete;
    Batch &operator=(const Batch &) = delete;
};

Interleaved maps(const Real &interleaved, std::int64_t count) {
    return {interleaved.data(), length(interleaved.shape(2)) - 1, length(interleaved.shape(4)), count};
}

void extract_sections(Complex volume, Real rotations, Real px, Real py, float pad, Out<std::complex<float>> out) {
    const Batch s(nullptr, nullptr, rotations, px, py, pad);
    const float *data = floats(volume);
    const std::int64_t half = length(volume.shape(2)) - 1;
    float *target = floats(out);
    nb::gil_scoped_release release;
    chosen->extract(s.particles, data, half, target);
}

void interleave(Complex volumes, Out<float> out) {
    const std::size_t count = volumes.shape(0), lanes = out.shape(4);
    const std::size_t voxels = volumes.shape(1) * volumes.shape(2) * volumes.shape(3);
    const std::complex<float> *source = volumes.data();
    float *target = out.data();
    nb::gil_scoped_release release;
    for (std::size_t v = 0; v < voxels; ++v) {
        float *re = target + 2 * lanes * v, *im = re + lanes;
        for (std::size_t k = 0; k < lanes; ++k) {
            const std::complex<float> value = k < count ? source[k * voxels + v] : std::complex<float>();
            re[k] = value.real();
            im[k] = value.imag();
        }
    }
}

void score_sections(Real interleaved, std::int64_t count, Complex images, Real ctfs, Real rotations, Real px, Real py,
                    float pad, Out<float> cross, Out<float> power) {
    const Batch s(&images, &ctfs, rotations, px, py, pad);
    const Interleaved m = maps(interleaved, count);
    float *first = cross.data(), *second = power.data();
    nb::gil_scoped_release release;
    chosen->score(s.particles, m, first, second);
}

void section_moments(Real interleaved, std::int64_t count, Complex images, Real ctfs, Real rotations, Real px, Real py,
                     float pad, Rows rows, Out<float> linear, Out<float> gram) {
    const Batch s(&images, &ctfs, rotations, px, py, pad, rows);
    const Interleaved m = maps(interleaved, count);
    float *first = linear.data(), *second = gram.data();
    nb::gil_scoped_release release;
    chosen->moments(s.particles, m, first, second);
}

void subtract_sections(Real interleaved, std::int64_t count, Real coefficients, Complex images, Real ctfs,
                       Real rotations, Real px, Real py, float pad, Out<std::complex<float>> out) {
    const Batch s(&images, &ctfs, rotations, px, py, pad);
    const Interleaved m = maps(interleaved, count);
    const float *factors = coefficients.data();
    float *target = floats(out);
    nb::gil_scoped_release release;
    chosen->subtract(s.particles, m, factors, target);
}

void pack_ridge(Complex volumes, Real ridge, Out<float> out) {
    const std::size_t size = volumes.size();
    const std::complex<float> *source = volumes.data();
    const float *weights = ridge.data();
    float *target = out.data();
    nb::gil_scoped_release release;
    for (std::size_t v = 0; v < size; ++v) {
        target[4 * v] = source[v].real();
        target[4 * v + 1] = source[v].imag();
        target[4 * v + 2] = weights[v];
        target[4 * v + 3] = 0;
    }
}

Entries entries_of(const In<std::int32_t> &labels, const Rows &rows) {
    return {length(labels.shape(0)), rows ? rows->data() : nullptr, labels.data()};
}

void leave_one_out_gains(Real records, In<std::int32_t> labels, Real factors, Complex images, Real ctfs, Real rotations,
                         Real px, Real py, float pad, Rows rows, bool change, Out<float> out) {
    const Batch s(&images, &ctfs, rotations, px, py, pad);
    const float *data = records.data(), *scale = factors.data();
    const Entries entries = entries_of(labels, rows);
    const std::int64_t half = length(records.shape(3)) - 1;
    float *target = out.data();
    nb::gil_scoped_release release;
    chosen->leave_one_out(s.particles, data, half, entries, scale, change, target);
}

void insert_sections(Complex images, Real ctfs, Real rotations, In<std::int32_t> labels, Real weights, Real px, Real py,
                     float pad, Rows rows, Out<float> out) {
    const Batch s(&images, &ctfs, rotations, px, py, pad);
    const Entries entries = entries_of(labels, rows);
    const float *scale = weights.data();
    const std::int64_t half = length(out.shape(3)) - 1;
    float *target = out.data();
    nb::gil_scoped_release release;
    chosen->insert(s.particles, entries, scale, half, target);
}

void backproject_moments(Complex images, Real ctfs, Real rotations, Real z, Real q, Real px, Real py, float pad,
                         Rows rows, Out<float> out) {
    const Batch s(&images, &ctfs, rotations, px, py, pad, rows);
    const float *first = z.data(), *second = q.data();
    const std::int64_t moments = length(z.shape(1)), weights = length(q.shape(1));
    const std::int64_t half = length(out.shape(2)) - 1, record = length(out.shape(3));
    float *target = out.data();
    nb::gil_scoped_release release;
    chosen->backproject(s.particles, first, moments, second, weights, half, record, target);
}

void latent_posteriors(Real linear, Real gram, Out<double> mean, Out<double> covariance) {
    const float *first = linear.data(), *second = gram.data();
    const std::int64_t n = length(linear.shape(0)), latents = length(linear.shape(1));
    double *centre = mean.data(), *spread = covariance.data();
    nb::gil_scoped_release release;
    chosen->posteriors(first, second, n, latents, centre, spread);
}

void moment_weights(In<double> mean, In<double> covariance, std::int64_t fixed, In<double> transform, Out<float> first,
                    Out<float> second) {
    const double *centre = mean.data(), *spread = covariance.data(), *matrix = transform.data();
    const std::int64_t n = length(mean.shape(0)), latents = length(mean.shape(1));
    float *one = first.data(), *two = second.data();
    nb::gil_scoped_release release;
    chosen->moment_weights(centre, spread, n, latents, fixed, matrix, one, two);
}

void marginal_moments(Real linear, Real gram, std::int64_t fixed, double breadth, Out<double> reduced,
                      Out<double> precision, Out<double> rest, Out<double> pull, Out<double> evidence) {
    const float *first = linear.data(), *second = gram.data();
    const std::int64_t n = length(linear.shape(0)), latents = length(linear.shape(1));
    double *one = reduced.data(), *two = precision.data(), *mean = rest.data(), *slope = pull.data();
    double *gain = evidence.data();
    nb::gil_scoped_release release;
    chosen->marginals(first, second, n, latents, fixed, breadth, one, two, mean, slope, gain);
}

double run_add(double *total, float *addend, std::int64_t n, double shift, bool clear) {
    return chosen->add_floats(total, addend, n, shift, clear);
}
double run_add(double *total, double *addend, std::int64_t n, double shift, bool clear) {
    return chosen->add_doubles(total, addend, n, shift, clear);
}

template <class T>
double add_rounded(Out<double> total, In<T> addend, double shift, bool clear) {
    double *target = total.data();
    // Only a call that clears writes here; an addend that is only read may be a read-only array.
    T *source = const_cast<T *>(addend.data());
    const std::int64_t n = length(total.size());
    nb::gil_scoped_release release;
    return run_add(target, source, n, shift, clear);
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "Compiled kernels; the arguments are checked by hpcsort.kernels, call that.";
    m.def("instruction_set", [] { return chosen->name; });
    m.def("use_instruction_set", [](nb::str name) { use_instruction_set(name.c_str()); }, "name"_a);
    m.def("extract_sections", &extract_sections);
    m.def("interleave", &interleave);
    m.def("score_sections", &score_sections);
    m.def("section_moments", &section_moments, "interleaved"_a, "count"_a, "images"_a, "ctfs"_a, "rotations"_a, "px"_a,
          "py"_a, "pad"_a, "rows"_a.none(), "linear"_a, "gram"_a);
    m.def("subtract_sections", &subtract_sections);
    m.def("pack_ridge", &pack_ridge);
    m.def("leave_one_out_gains", &leave_one_out_gains, "records"_a, "labels"_a, "factors"_a, "images"_a, "ctfs"_a,
          "rotations"_a, "px"_a, "py"_a, "pad"_a, "rows"_a.none(), "change"_a, "out"_a);
    m.def("insert_sections", &insert_sections, "images"_a, "ctfs"_a, "rotations"_a, "labels"_a, "weights"_a, "px"_a,
          "py"_a, "pad"_a, "rows"_a.none(), "out"_a);
    m.def("latent_posteriors", &latent_posteriors);
    m.def("moment_weights", &moment_weights);
    m.def("marginal_moments", &marginal_moments);
    m.def("backproject_moments", &backproject_moments, "images"_a, "ctfs"_a, "rotations"_a, "z"_a, "q"_a, "px"_a, "py"_a,
          "pad"_a, "rows"_a.none(), "out"_a);
    // A converted copy would keep what was added, hence noconvert.
    m.def("add_rounded", &add_rounded<float>, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg());
    m.def("add_rounded", &add_rounded<double>, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg());
}
