// Image files, by OpenCV. Linked by poseidon-images only, never beside torch (see CMakeLists.txt here).
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "engines/caffe/data/record_reader.h"
#include "engines/caffe/data/window_crop.h"
#include "engines/caffe/data/window_record.h"
#include "engines/caffe/proto/datum.h"

namespace poseidon::caffe {

struct ImageSize {
  int width = 0;
  int height = 0;
};

// Decodes an image file that is in memory to plain numbers [channels, height, width], channels in the order blue,
// green, red. Label 0. `where` begins the message of the ConfigError for what is no image, or has more than 8 bits a
// channel.
proto::Datum decode_image(std::string_view file_bytes, ImageColor color, std::string_view where);

// The same for the image inside an encoded datum, given and returned as bytes; the label stays.
std::string decode_datum(std::string_view datum, ImageColor color, const std::string& where);

struct ImageOptions {
  bool gray = false;     // one channel, else three
  ImageSize resize;      // bilinear; {0, 0} keeps the size
  std::string encoding;  // "png", "jpg", ...: keep the image as a file of this kind; empty: as plain numbers
};
// Reads an image file and makes a record of it. Where nothing about the image changes, an encoded record holds the
// file's own bytes. Throws ConfigError naming the file.
proto::Datum read_image(const std::filesystem::path& file, const ImageOptions& options, int label);

// The part of an image that a window shows, cut out, brought to its size (bilinear) and mirrored: with three channels.
// `where` begins the message of the ConfigError for what is no image.
WindowRecord cut_window(std::string_view file_bytes, const Window& window, const WindowCrop& crop, bool mirrored,
                        std::string_view where);

// Whether OpenCV can write files of this kind.
bool can_encode(const std::string& encoding);

// Call once at the start of a program: OpenCV keeps quiet and makes no threads of its own.
void prepare_image_library();

}  // namespace poseidon::caffe
