#include "engines/caffe/data/jpeg.h"

#include <csetjmp>
#include <cstddef>
#include <cstdio>  // for jpeglib.h
#include <cstring>

#include <jpeglib.h>

namespace poseidon::caffe {
namespace {

constexpr JDIMENSION kSideMax = 1 << 14;
constexpr unsigned kMarkerBytesMax = 0xFFFF;

struct Failure {
  jpeg_error_mgr base;  // first: libjpeg knows this part
  std::jmp_buf where;
};

// libjpeg may not return from here.
[[noreturn]] void leave(j_common_ptr decoder) {
  std::longjmp(reinterpret_cast<Failure*>(decoder->err)->where, 1);
}

// Warnings are counted; nothing is printed.
void count(j_common_ptr decoder, int level) {
  if (level < 0) ++decoder->err->num_warnings;
}

bool has_exif(const jpeg_decompress_struct& decoder) {
  for (const jpeg_marker_struct* marker = decoder.marker_list; marker != nullptr; marker = marker->next) {
    if (marker->data_length >= 4 && std::memcmp(marker->data, "Exif", 4) == 0) return true;
  }
  return false;
}

J_COLOR_SPACE space_of(JpegPixels pixels) {
  switch (pixels) {
    case JpegPixels::kGray:
      return JCS_GRAYSCALE;
    case JpegPixels::kBlueFirst:
      return JCS_EXT_BGR;
    case JpegPixels::kBlueLowest:
      return JCS_EXT_BGRX;
  }
  return JCS_UNKNOWN;
}

}  // namespace

struct JpegDecoder::State {
  jpeg_decompress_struct decoder{};
  Failure failure{};

  // False where libjpeg jumped out of `action`, which therefore holds nothing that would have to be destroyed.
  template <typename Action>
  bool succeeds(const Action& action) {
    if (setjmp(failure.where) != 0) return false;
    return action();
  }
};

JpegDecoder::JpegDecoder() : state_(std::make_unique<State>()) {
  state_->decoder.err = jpeg_std_error(&state_->failure.base);
  state_->failure.base.error_exit = &leave;
  state_->failure.base.emit_message = &count;
  state_->succeeds([this] {
    jpeg_create_decompress(&state_->decoder);
    jpeg_save_markers(&state_->decoder, JPEG_APP0 + 1, kMarkerBytesMax);
    return true;
  });
}

JpegDecoder::~JpegDecoder() {
  jpeg_destroy_decompress(&state_->decoder);
}

std::optional<JpegHeader> JpegDecoder::open(std::string_view bytes) {
  jpeg_decompress_struct& decoder = state_->decoder;
  jpeg_abort_decompress(&decoder);
  state_->failure.base.num_warnings = 0;
  if (bytes.size() < 3 || std::memcmp(bytes.data(), "\xFF\xD8\xFF", 3) != 0) return std::nullopt;
  const bool is_read = state_->succeeds([&] {
    jpeg_mem_src(&decoder, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    return jpeg_read_header(&decoder, TRUE) == JPEG_HEADER_OK;
  });
  const bool is_plain = is_read && (decoder.num_components == 1 || decoder.num_components == 3) && decoder.image_width <= kSideMax &&
                        decoder.image_height <= kSideMax && !has_exif(decoder);
  if (!is_plain) return std::nullopt;
  return JpegHeader{decoder.num_components, static_cast<int>(decoder.image_height), static_cast<int>(decoder.image_width)};
}

bool JpegDecoder::start(JpegPixels pixels) {
  state_->decoder.out_color_space = space_of(pixels);
  return state_->succeeds([this] { return jpeg_start_decompress(&state_->decoder) == TRUE; });
}

bool JpegDecoder::read(unsigned char* row) {
  return state_->succeeds([this, row] {
    JSAMPROW rows = row;
    return jpeg_read_scanlines(&state_->decoder, &rows, 1) == 1;
  });
}

bool JpegDecoder::finish() {
  return state_->succeeds([this] { return jpeg_finish_decompress(&state_->decoder) == TRUE; }) &&
         state_->failure.base.num_warnings == 0;
}

}  // namespace poseidon::caffe
