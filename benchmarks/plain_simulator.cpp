// The committee machine by one-pass SGD as one writes it plainly in C++: one thread, a loop over steps. Compiled twice,
// with the standard library's normal numbers, and (-DZIGGURAT) with the fastest that are published: Marsaglia and Tsang's
// ziggurat (Journal of Statistical Software 5, 2000) of 256 layers on 64 bits, as Doornik (2005) corrects it, fed by
// xoshiro256++ (Blackman and Vigna 2021). Weights are over √d, so that a field is w·x.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace {

#ifdef ZIGGURAT
struct Normals {
    static constexpr int layers = 256;
    static constexpr double last = 3.6541528853610088, area = 0.00492867323399;
    uint64_t s[4];
    double width[layers + 1], density[layers + 1];

    explicit Normals(uint64_t seed) {
        for (auto &word : s) {  // splitmix64
            uint64_t z = (seed += 0x9e3779b97f4a7c15);
            z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
            z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
            word = z ^ (z >> 31);
        }
        double f = std::exp(-0.5 * last * last);
        width[0] = area / f;
        width[1] = last;
        width[layers] = 0.0;
        for (int i = 2; i < layers; ++i) {
            width[i] = std::sqrt(-2.0 * std::log(area / width[i - 1] + f));
            f = std::exp(-0.5 * width[i] * width[i]);
        }
        for (int i = 0; i <= layers; ++i) density[i] = std::exp(-0.5 * width[i] * width[i]);
    }
    static uint64_t rotated(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
    uint64_t bits() {
        const uint64_t result = rotated(s[0] + s[3], 23) + s[0], t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = rotated(s[3], 45);
        return result;
    }
    double uniform() { return ((bits() >> 11) + 0.5) * 0x1p-53; }
    double operator()() {
        for (;;) {
            const uint64_t r = bits();
            const int i = r & (layers - 1);
            const double u = double(int64_t(r) >> 11) * 0x1p-52, x = u * width[i];
            if (std::fabs(x) < width[i + 1]) return x;
            if (i == 0) {
                double a, b;
                do {
                    a = -std::log(uniform()) / last;
                    b = -std::log(uniform());
                } while (2 * b < a * a);
                return u < 0 ? -(last + a) : last + a;
            }
            if (density[i] + uniform() * (density[i + 1] - density[i]) < std::exp(-0.5 * x * x)) return x;
        }
    }
};
#else
struct Normals {
    std::mt19937_64 engine;
    std::normal_distribution<double> normal;
    explicit Normals(uint64_t seed) : engine(seed) {}
    double operator()() { return normal(engine); }
};
#endif

Normals normals(1);

}  // namespace

extern "C" void draw(double *x, size_t n) {
    for (size_t j = 0; j < n; ++j) x[j] = normals();
}

extern "C" void train(double *student, const double *teacher, size_t K, size_t M, size_t d, double eta, size_t steps) {
    std::vector<double> x(d), h(K);
    for (size_t step = 0; step < steps; ++step) {
        for (size_t j = 0; j < d; ++j) x[j] = normals();
        double error = 0.0;
        for (size_t n = 0; n < M; ++n) {
            double field = 0.0;
            for (size_t j = 0; j < d; ++j) field += teacher[n * d + j] * x[j];
            error += std::erf(field / std::sqrt(2.0));
        }
        for (size_t i = 0; i < K; ++i) {
            double field = 0.0;
            for (size_t j = 0; j < d; ++j) field += student[i * d + j] * x[j];
            h[i] = field;
            error -= std::erf(field / std::sqrt(2.0));
        }
        for (size_t i = 0; i < K; ++i) {
            const double rate = eta / d * error * std::sqrt(2.0 / M_PI) * std::exp(-h[i] * h[i] / 2);
            for (size_t j = 0; j < d; ++j) student[i * d + j] += rate * x[j];
        }
    }
}
