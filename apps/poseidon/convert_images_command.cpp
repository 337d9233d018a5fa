// `poseidon convert-images`: lives in another program, because what reads images draws in libraries that the trainer is better
// without (engines/caffe/data/record_reader.h).
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "apps/poseidon/command.h"

namespace poseidon::app {

int convert_images_command(const std::vector<std::string>& arguments) {
  std::error_code ignored;
  std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path() / "poseidon-data";
  if (const char* const other = std::getenv("POSEIDON_DATA_PROGRAM")) program = other;
  std::vector<std::string> words = {program.string(), "convert-images"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  ::execv(program.c_str(), pointers.data());
  std::fprintf(stderr, "poseidon convert-images: cannot run %s, which belongs beside this program: %s\n", program.c_str(),
               std::strerror(errno));
  return kSystem;
}

}  // namespace poseidon::app
