// JPEG by libjpeg-turbo itself, row by row: whoever decodes can use a row up while it is in the cache. OpenCV calls the same library,
// and then changes the order of the channels pixel by pixel, which takes a quarter of the whole time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

namespace poseidon::caffe {

struct JpegHeader {
  int channels = 0;  // 1 or 3
  int height = 0;
  int width = 0;
};

enum class JpegPixels : std::uint8_t {
  kGray,        // one byte
  kBlueFirst,   // three bytes: blue, green, red
  kBlueLowest,  // the lowest three bytes of a std::uint32_t: blue lowest, then green, red; the highest says nothing
};

// Decodes one file after the other. Not for several threads at once. A function that has said no is followed by open().
class JpegDecoder {
 public:
  JpegDecoder();
  ~JpegDecoder();
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  // `bytes` must live until the last call for this file. Nothing where OpenCV must be asked: for what is no JPEG, has four
  // colours, has Exif, which may turn the image, or is larger than 16,384 pixels on a side.
  std::optional<JpegHeader> open(std::string_view bytes);
  // A gray file can be read in colour, and the other way round. False where the file is damaged so that it cannot begin.
  bool start(JpegPixels pixels);
  // Writes the next row, of `width` pixels. False where nothing can be read any more.
  bool read(unsigned char* row);
  // After the last row: false if the decoder had to guess anywhere, since bytes were damaged or missing.
  bool finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace poseidon::caffe
