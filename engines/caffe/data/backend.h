// The two kinds of data base that Caffe keeps records in.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace poseidon::caffe {

enum class Backend : std::uint8_t { kLmdb, kLevelDb };

// "LMDB", "LevelDB": for people.
constexpr std::string_view to_string(Backend backend) {
  return backend == Backend::kLmdb ? "LMDB" : "LevelDB";
}
// "lmdb", "leveldb": in flags, and at the end of folders' names.
constexpr std::string_view flag_of(Backend backend) {
  return backend == Backend::kLmdb ? "lmdb" : "leveldb";
}
constexpr std::optional<Backend> backend_called(std::string_view flag) {
  if (flag == "lmdb") return Backend::kLmdb;
  if (flag == "leveldb") return Backend::kLevelDb;
  return std::nullopt;
}

}  // namespace poseidon::caffe
