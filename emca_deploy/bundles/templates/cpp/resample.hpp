// Resizes images as Pillow does, with antialiasing and the same fixed-point arithmetic.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

struct Image {
    int width = 0, height = 0, channels = 0;
    std::vector<std::uint8_t> pixels;  // (height, width, channels)
};

enum class Filter { NEAREST, BILINEAR, BICUBIC, LANCZOS };

namespace resample {

constexpr double PI = 3.141592653589793238462643;
constexpr int PRECISION_BITS = 32 - 8 - 2;

inline double sinc(double x) { return x == 0.0 ? 1.0 : std::sin(x * PI) / (x * PI); }

inline double weight(Filter filter, double x) {
    if (filter == Filter::LANCZOS) {
        return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
    }
    x = std::abs(x);
    if (filter == Filter::BILINEAR) {
        return x < 1.0 ? 1.0 - x : 0.0;
    }
    constexpr double a = -0.5;
    if (x < 1.0) {
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    }
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

struct Taps {
    int first;
    std::vector<int> weights;
};

// Returns the input pixels of each output pixel along one axis, and their weights.
inline std::vector<Taps> taps(int have, int want, Filter filter) {
    const double scale = double(have) / want, spread = std::max(scale, 1.0);
    const double support = (filter == Filter::BILINEAR ? 1.0 : filter == Filter::BICUBIC ? 2.0 : 3.0) * spread;
    std::vector<Taps> found;
    for (int place = 0; place < want; ++place) {
        const double center = (place + 0.5) * scale, inverse = 1.0 / spread;
        const int first = std::max(0, int(center - support + 0.5));
        const int count = std::min(have, int(center + support + 0.5)) - first;
        std::vector<double> exact(count);
        double sum = 0.0;
        for (int tap = 0; tap < count; ++tap) {
            sum += exact[tap] = weight(filter, (tap + first - center + 0.5) * inverse);
        }
        Taps rounded{first, {}};
        for (double value : exact) {
            value = (sum != 0.0 ? value / sum : value) * (1 << PRECISION_BITS);
            rounded.weights.push_back(int(value < 0 ? value - 0.5 : value + 0.5));
        }
        found.push_back(rounded);
    }
    return found;
}

// Resizes the middle axis of values (outer, have, inner) to (outer, want, inner).
inline std::vector<std::uint8_t> axis(const std::vector<std::uint8_t>& values, std::size_t outer, int have, std::size_t inner,
                                      int want, Filter filter) {
    std::vector<std::uint8_t> found(outer * want * inner);
    const auto all = taps(have, want, filter);
    for (std::size_t row = 0; row < outer; ++row) {
        for (int place = 0; place < want; ++place) {
            for (std::size_t column = 0; column < inner; ++column) {
                const std::uint8_t* from = &values[(row * have + all[place].first) * inner + column];
                int sum = 1 << (PRECISION_BITS - 1);
                for (std::size_t tap = 0; tap < all[place].weights.size(); ++tap) {
                    sum += from[tap * inner] * all[place].weights[tap];
                }
                found[(row * want + place) * inner + column] = std::uint8_t(std::clamp(sum >> PRECISION_BITS, 0, 255));
            }
        }
    }
    return found;
}

// Returns the input pixel that is nearest to each output pixel along one axis.
inline std::vector<int> nearest(int have, int want) {
    std::vector<int> found;
    const double scale = double(have) / want;
    double place = scale * 0.5;
    for (int index = 0; index < want; ++index, place += scale) {  // added up, as Pillow does
        found.push_back(std::min(int(place), have - 1));
    }
    return found;
}

}  // namespace resample

// Returns an image at another size. Pillow 13 changes the height first where it shrinks it much more; earlier ones never do.
inline Image resize(Image image, int width, int height, Filter filter) {
    const std::size_t channels = image.channels;
    Image found{width, height, image.channels, {}};
    if (filter == Filter::NEAREST) {
        const auto rows = resample::nearest(image.height, height), columns = resample::nearest(image.width, width);
        for (int row : rows) {
            for (int column : columns) {
                const auto from = image.pixels.begin() + (std::size_t(row) * image.width + column) * channels;
                found.pixels.insert(found.pixels.end(), from, from + channels);
            }
        }
        return found;
    }
    const bool height_first = height < image.height && image.height - height > 2 * (image.width - width);
    for (const bool vertical : {height_first, !height_first}) {
        if (vertical && height != image.height) {
            image.pixels = resample::axis(image.pixels, 1, image.height, image.width * channels, height, filter);
            image.height = height;
        } else if (!vertical && width != image.width) {
            image.pixels = resample::axis(image.pixels, image.height, image.width, channels, width, filter);
            image.width = width;
        }
    }
    found.pixels = std::move(image.pixels);
    return found;
}
