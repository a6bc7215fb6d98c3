// A network: from the values of one image to its output.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bundle.hpp"

struct Network {
    const Model& model;
    std::function<std::vector<float>(const std::vector<float>&)> run;  // from (height, width, channels) to (classes)
};

Network open_network(const std::string& bundle, int threads);

// Returns values (height, width, channels) in the type and layout of a model.
template <typename Value>
std::vector<Value> arranged(const std::vector<float>& values, const Model& model) {
    std::vector<Value> found(values.size());
    for (std::size_t pixel = 0; pixel < std::size_t(HEIGHT) * WIDTH; ++pixel) {
        for (std::size_t channel = 0; channel < CHANNELS; ++channel) {
            const float value = values[pixel * CHANNELS + channel];
            const std::size_t place = model.channels_last ? pixel * CHANNELS + channel : channel * HEIGHT * WIDTH + pixel;
            found[place] = model.takes_uint8 ? Value(std::clamp(std::nearbyint(value), 0.0f, 255.0f)) : Value(value);
        }
    }
    return found;
}

// Returns the shape of one image for a model.
inline std::vector<std::size_t> shape_of(const Model& model) {
    if (model.channels_last) {
        return {1, HEIGHT, WIDTH, CHANNELS};
    }
    return {1, CHANNELS, HEIGHT, WIDTH};
}
