// poseidon-images: what needs OpenCV. poseidon-data turns into it.
#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <exception>

#include "apps/poseidon-data/commands.h"
#include "engines/caffe/data/image_file.h"

namespace poseidon::data {
namespace {

// Images come and go by the thousand: what one leaves, the next takes, where malloc would give pages back and ask for them again.
void keep_freed_memory() {
  constexpr int kBytes = 32 << 20;  // the most that malloc takes for the first
  ::mallopt(M_MMAP_THRESHOLD, kBytes);
  ::mallopt(M_TRIM_THRESHOLD, 4 * kBytes);
}

caffe::DecodeFn decode_here(caffe::ImageColor color, const std::vector<std::string>&) {
  return [color](const caffe::EncodedRecord& record) { return caffe::decode_datum(record.datum, color, record.where); };
}

void serve_here(const caffe::ServeImagesOptions& options, const std::vector<std::string>&) {
  caffe::serve_images(options, STDOUT_FILENO);
}

int run(const std::vector<std::string>& arguments) {
  const std::string subcommand = arguments.empty() ? "" : arguments.front();
  const std::vector<std::string> rest(arguments.empty() ? arguments.end() : arguments.begin() + 1, arguments.end());
  keep_freed_memory();
  caffe::prepare_image_library();
  if (subcommand == "read") return read_command(rest, {.decodes_here = true, .make_decode = &decode_here, .serve_images = &serve_here});
  if (subcommand == "convert-images") return convert_images_command(rest);
  if (subcommand == "plot-log") return plot_log_command(rest);
  if (subcommand == "plot") return plot_command(rest);
  std::fputs("poseidon-images belongs to poseidon and poseidon-data; `poseidon --help` says more\n", stderr);
  return kWrongUsage;
}

}  // namespace
}  // namespace poseidon::data

int main(int argc, char** argv) {
  try {
    return poseidon::data::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "poseidon-images: %s\n", error.what());
    return poseidon::data::kBroken;
  }
}
