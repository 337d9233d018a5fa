// Caffe's protobuf messages, seen without protobuf.
//
// Torch's include folder carries another protobuf, so a file that includes torch may not include ours. Layers, nets and
// solvers therefore read their settings through this view, which holds plain types only and reads by the schema's own
// field names; a name or type that the schema does not have is a mistake of the program and throws std::logic_error.
// Defaults are the schema's (caffe.proto), so reading an absent field gives what Caffe would use. Nets and solvers of
// older forms are upgraded when they are read: only the present form is seen here, with the positions of the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace poseidon::caffe::proto {

class Document;

// Where a message or field stands in its prototxt.
struct Position {
  std::string file;  // as it was named when it was read
  int line = 0;      // from 1; 0 for a default, which stands nowhere
  int column = 0;    // from 1
  // "lenet.prototxt:12:3", or "lenet.prototxt" where there is no line.
  std::string text() const;
};

// A reading view of one message: cheap to copy, and it keeps its document alive. Reading from several threads is safe.
class Message {
 public:
  // Is the field set (singular), or does it have at least one element (repeated)?
  bool has(std::string_view field) const;
  // How many elements a repeated field has.
  std::size_t count(std::string_view field) const;

  // Singular fields; the schema's default where unset. `integer` serves all integer types, `real` float and double. A
  // float comes as the shortest decimal that means it: `base_lr: 0.1` reads as 0.1, not as 0.100000001. Rounded to
  // float it is what Caffe uses, bit for bit; in double arithmetic it is what the user wrote.
  std::int64_t integer(std::string_view field) const;
  double real(std::string_view field) const;
  bool flag(std::string_view field) const;
  std::string text(std::string_view field) const;    // strings and bytes
  std::string choice(std::string_view field) const;  // the name of an enumerator: "MAX"
  Message message(std::string_view field) const;     // an empty message with all defaults where unset

  // Repeated fields, whole.
  std::vector<std::int64_t> integers(std::string_view field) const;
  std::vector<double> reals(std::string_view field) const;
  std::vector<bool> flags(std::string_view field) const;
  std::vector<std::string> texts(std::string_view field) const;
  std::vector<std::string> choices(std::string_view field) const;
  std::vector<Message> messages(std::string_view field) const;

  // Where the message begins, or where the `nth` value of one of its fields stands (where the message begins, if
  // unset).
  Position position() const;
  Position position(std::string_view field, std::size_t nth = 0) const;

  // The message in protobuf's text format, for logs and for writing prototxts.
  std::string as_text() const;
  std::string type_name() const;  // "caffe.LayerParameter"
  // What was of an older form in the file that the message is from, in words; empty where nothing was.
  const std::vector<std::string>& old_forms() const;

 private:
  friend class Document;
  struct View;
  explicit Message(std::shared_ptr<const View> view);
  std::shared_ptr<const View> view_;
};

// Reads a NetParameter, SolverParameter, ... in text format. Throws ConfigError with file, line and column, and the
// near matches for a misspelt field.
Message read_text(const std::filesystem::path& file, std::string_view type_name);
Message parse_text(std::string_view text, std::string_view type_name, std::string_view file_name);

}  // namespace poseidon::caffe::proto
