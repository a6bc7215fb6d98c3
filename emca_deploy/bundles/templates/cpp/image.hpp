// Reads image files.
#pragma once

#include <string>

#include "resample.hpp"

// Returns an image in RGB, (height, width, 3); with `upright`, turned by its EXIF orientation.
Image read_image(const std::string& path, bool upright);
