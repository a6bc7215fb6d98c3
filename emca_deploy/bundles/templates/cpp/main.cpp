// Classifies images with the model of a bundle.
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <numeric>
#include <stdexcept>

#include "image.hpp"
#include "network.hpp"
#include "preprocess.hpp"

namespace {

const char* const USAGE =
    "usage: classify --bundle DIR [--top N] [--threads N] [--logits FILE.npy] [--inputs FILE.npy] IMAGE...\n"
    "  --bundle   the unpacked bundle\n"
    "  --top      classes for each image (5)\n"
    "  --threads  threads; 0 lets the runtime choose (0)\n"
    "  --logits   write the outputs of the network, (images, classes)\n"
    "  --inputs   write the inputs of the network\n";

struct Options {
    std::string bundle, logits, inputs;
    int top = 5, threads = 0;
    std::vector<std::string> images;
};

Options parsed(int count, char** values) {
    Options found;
    for (int index = 1; index < count; ++index) {
        const std::string name = values[index];
        if (name.rfind("--", 0) != 0) {
            found.images.push_back(name);
            continue;
        }
        if (++index >= count) {
            throw std::invalid_argument(name + " needs a value");
        }
        const std::string value = values[index];
        if (name == "--bundle") {
            found.bundle = value;
        } else if (name == "--logits") {
            found.logits = value;
        } else if (name == "--inputs") {
            found.inputs = value;
        } else if (name == "--top" || name == "--threads") {
            if (value.empty() || value.size() > 6 || value.find_first_not_of("0123456789") != std::string::npos) {
                throw std::invalid_argument(name + " " + value + " is not a number");
            }
            (name == "--top" ? found.top : found.threads) = std::stoi(value);
        } else {
            throw std::invalid_argument("there is no option " + name);
        }
    }
    if (found.bundle.empty() || found.images.empty()) {
        throw std::invalid_argument(found.bundle.empty() ? "--bundle is missing" : "there is no image");
    }
    return found;
}

// Writes an array of numpy; `type` is its description, such as "<f4", and `shape` its sizes, such as "2, 10".
template <typename Value>
void write_npy(const std::string& path, const std::vector<Value>& values, const std::string& type, const std::string& shape) {
    std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" + shape + "), }";
    header.append(63 - (10 + header.size()) % 64, ' ') += '\n';
    std::ofstream stream(path, std::ios::binary);
    stream << std::string("\x93NUMPY\x01\0", 8) << char(header.size() & 0xff) << char(header.size() >> 8) << header;
    stream.write(reinterpret_cast<const char*>(values.data()), std::streamsize(values.size() * sizeof(Value)));
    if (!stream.flush()) {
        throw std::runtime_error(path + ": cannot be written");
    }
}

void write_inputs(const std::string& path, const std::vector<std::vector<float>>& inputs, const Model& model) {
    std::vector<float> all;
    for (const auto& input : inputs) {
        const auto ready = arranged<float>(input, model);
        all.insert(all.end(), ready.begin(), ready.end());
    }
    std::string shape = std::to_string(inputs.size());
    const auto sizes = shape_of(model);
    for (std::size_t index = 1; index < sizes.size(); ++index) {
        shape += ", " + std::to_string(sizes[index]);
    }
    if (model.takes_uint8) {
        write_npy(path, std::vector<std::uint8_t>(all.begin(), all.end()), "|u1", shape);
    } else {
        write_npy(path, all, "<f4", shape);
    }
}

std::vector<float> softmax(std::vector<float> values, float temperature) {
    const float largest = *std::max_element(values.begin(), values.end());
    for (float& value : values) {
        value = std::exp((value - largest) / temperature);
    }
    const float sum = std::accumulate(values.begin(), values.end(), 0.0f);
    for (float& value : values) {
        value /= sum;
    }
    return values;
}

void print_best(const std::string& image, const std::vector<float>& probabilities, int top) {
    std::vector<std::size_t> order(probabilities.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](auto one, auto other) { return probabilities[one] > probabilities[other]; });
    order.resize(std::min<std::size_t>(order.size(), top));
    for (const std::size_t index : order) {
        std::printf("%s: %s %.4f\n", image.c_str(), CLASSES[index], double(probabilities[index]));
    }
}

void classify(const Options& options) {
    const Network network = open_network(options.bundle, options.threads);
    std::vector<float> outputs;
    std::vector<std::vector<float>> inputs;
    for (const auto& path : options.images) {
        const auto input = preprocess(read_image(path, UPRIGHT));
        const auto output = network.run(input);
        if (output.size() != std::size(CLASSES)) {
            throw std::runtime_error("the network has " + std::to_string(output.size()) + " outputs");
        }
        print_best(path, network.model.probabilities ? output : softmax(output, network.model.temperature), options.top);
        if (!options.logits.empty()) {
            outputs.insert(outputs.end(), output.begin(), output.end());
        }
        if (!options.inputs.empty()) {
            inputs.push_back(input);
        }
    }
    if (!options.logits.empty()) {
        write_npy(options.logits, outputs, "<f4", std::to_string(options.images.size()) + ", " + std::to_string(std::size(CLASSES)));
    }
    if (!options.inputs.empty()) {
        write_inputs(options.inputs, inputs, network.model);
    }
}

}  // namespace

int main(int count, char** values) {
    try {
        if (count < 2 || std::string(values[1]) == "--help") {
            std::cout << USAGE;
            return count < 2 ? 2 : 0;
        }
        classify(parsed(count, values));
    } catch (const std::invalid_argument& error) {
        std::cerr << "error: " << error.what() << '\n' << USAGE;
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
