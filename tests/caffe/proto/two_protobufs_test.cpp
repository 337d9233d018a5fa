// An executable that links libtorch and, behind it, our protobuf: libtorch first is the order in which its symbols
// would win.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <memory>
#include <string>

#include "engines/caffe/proto/message.h"

namespace poseidon::caffe::proto {
namespace {

struct CloseProcess {
  void operator()(std::FILE* file) const { ::pclose(file); }
};

// How many dynamic symbols of this executable that nm lists under `flags` mention protobuf or Caffe's messages.
std::string protobuf_symbols(const std::string& flags) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command = "nm -D " + flags + " '" + self + "' | grep -E 'google8protobuf|5caffe' | head -5";
  const std::unique_ptr<std::FILE, CloseProcess> output(::popen(command.c_str(), "r"));
  std::string text;
  std::array<char, 512> line{};
  while (output && std::fgets(line.data(), line.size(), output.get()) != nullptr) text += line.data();
  return text;
}

TEST(TwoProtobufs, DoNotSeeEachOther) {
  ASSERT_EQ(std::system("nm -D /proc/self/exe > /dev/null"), 0) << "this test needs nm (binutils)";
  EXPECT_EQ(protobuf_symbols("--defined-only"), "");
  EXPECT_EQ(protobuf_symbols("--undefined-only"), "");
}

TEST(TwoProtobufs, ReadAPrototxtInOneProcess) {
  const Message net = parse_text("name: 'x' layer { name: 'a' type: 'ReLU' }", "NetParameter", "x");
  EXPECT_EQ(net.messages("layer")[0].text("type"), "ReLU");
}

}  // namespace
}  // namespace poseidon::caffe::proto
