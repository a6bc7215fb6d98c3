// Reads image files with stb: JPEG, PNG, BMP, GIF and PNM.
#include "image.hpp"

#include <climits>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>

#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_ONLY_GIF
#define STBI_ONLY_PNM
#include <stb_image.h>

namespace {

constexpr std::size_t MAX_PIXELS = 89478485;
using Bytes = std::vector<unsigned char>;

// Numbers in a part of a file, which reads as zeros behind its end.
struct Numbers {
    const unsigned char* data;
    std::size_t size;
    bool little = false;

    std::size_t at(std::size_t place, int bytes) const {
        std::size_t found = 0;
        for (int index = 0; index < bytes; ++index) {
            const std::size_t from = place + (little ? bytes - 1 - index : index);
            found = found << 8 | (from < size ? data[from] : 0);
        }
        return found;
    }
    Numbers part(std::size_t start, std::size_t length) const {
        start = std::min(start, size);
        return {data + start, std::min(length, size - start)};
    }
    bool begins(const char* text, std::size_t length) const { return size >= length && std::memcmp(data, text, length) == 0; }
};

// Returns the orientation of an EXIF block, 1 to 8; 1 where it has none.
int orientation_of(Numbers exif) {
    exif.little = exif.begins("II", 2);
    const std::size_t folder = exif.at(4, 4);
    for (std::size_t entry = 0; entry < exif.at(folder, 2); ++entry) {
        const std::size_t place = folder + 2 + 12 * entry;
        if (exif.at(place, 2) == 0x0112) {
            const std::size_t value = exif.at(place + 8, exif.at(place + 2, 2) == 3 ? 2 : 4);
            return 2 <= value && value <= 8 ? int(value) : 1;
        }
    }
    return 1;
}

// Returns the orientation of a JPEG or PNG file.
int file_orientation(const Bytes& bytes) {
    const Numbers file{bytes.data(), bytes.size()};
    if (file.begins("\xff\xd8", 2)) {
        for (std::size_t place = 2; place + 4 < file.size && file.at(place, 1) == 0xff; place += 2 + file.at(place + 2, 2)) {
            const std::size_t marker = file.at(place + 1, 1);
            const Numbers block = file.part(place + 4, file.at(place + 2, 2) - 2);
            if (marker == 0xda) {
                break;  // pixels follow
            }
            if (marker == 0xe1 && block.begins("Exif\0\0", 6)) {
                return orientation_of(block.part(6, block.size));
            }
        }
    } else if (file.begins("\x89PNG", 4)) {
        for (std::size_t place = 8; place + 12 <= file.size; place += 12 + file.at(place, 4)) {
            if (file.part(place + 4, 4).begins("eXIf", 4)) {
                return orientation_of(file.part(place + 8, file.at(place, 4)));
            }
        }
    }
    return 1;
}

// Returns an image that is turned upright.
Image turned(const Image& image, int orientation) {
    const bool swaps = orientation >= 5;
    const bool flips_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool flips_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    Image found{swaps ? image.height : image.width, swaps ? image.width : image.height, image.channels, {}};
    for (int row = 0; row < found.height; ++row) {
        for (int column = 0; column < found.width; ++column) {
            const int x = swaps ? row : column, y = swaps ? column : row;
            const std::size_t from_x = flips_x ? image.width - 1 - x : x, from_y = flips_y ? image.height - 1 - y : y;
            const auto from = image.pixels.begin() + (from_y * image.width + from_x) * image.channels;
            found.pixels.insert(found.pixels.end(), from, from + image.channels);
        }
    }
    return found;
}

}  // namespace

Image read_image(const std::string& path, bool upright) {
    std::ifstream stream(path, std::ios::binary);
    const Bytes bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    const int size = int(bytes.size());
    Image image{0, 0, 3, {}};
    int channels = 0;
    if (!stream || bytes.size() > INT_MAX || !stbi_info_from_memory(bytes.data(), size, &image.width, &image.height, &channels)) {
        throw std::runtime_error(path + ": cannot be read as a JPEG, PNG, BMP, GIF or PNM image");
    }
    const std::size_t count = std::size_t(image.width) * image.height;
    if (count > MAX_PIXELS) {
        throw std::runtime_error(path + ": has too many pixels");
    }
    int width = 0, height = 0;
    image.pixels.resize(count * 3);
    if (channels == 1 && stbi_is_16_bit_from_memory(bytes.data(), size)) {
        const std::unique_ptr<stbi_us, void (*)(void*)> values(
            stbi_load_16_from_memory(bytes.data(), size, &width, &height, &channels, 1), stbi_image_free);
        for (std::size_t index = 0; values && index < image.pixels.size(); ++index) {
            image.pixels[index] = std::uint8_t((values.get()[index / 3] + 128) / 257);
        }
        width = values ? width : 0;
    } else {
        const std::unique_ptr<stbi_uc, void (*)(void*)> values(
            stbi_load_from_memory(bytes.data(), size, &width, &height, &channels, 3), stbi_image_free);
        if (values && width == image.width && height == image.height) {
            std::copy_n(values.get(), image.pixels.size(), image.pixels.begin());
        }
        width = values ? width : 0;
    }
    if (width != image.width || height != image.height) {
        const char* reason = stbi_failure_reason();
        throw std::runtime_error(path + ": cannot be decoded: " + (reason ? reason : "unknown reason"));
    }
    return upright ? turned(image, file_orientation(bytes)) : image;
}
