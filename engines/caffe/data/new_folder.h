// A data base that is being written: a folder under a temporary name until it is complete.
#pragma once

#include <filesystem>

namespace poseidon::caffe {

class NewFolder {
 public:
  // Makes the temporary folder beside `name`. Throws ConfigError where the name is taken: by anything, or with
  // `overwrite` by anything but a data base. Throws SystemError where the folder cannot be made.
  NewFolder(const std::filesystem::path& name, bool overwrite);
  // Removes what has no name yet.
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const std::filesystem::path& name() const { return name_; }
  // Where to write.
  const std::filesystem::path& temporary() const { return temporary_; }

  // Writes the files of the folder through to the disk.
  void sync_files() const;
  // Gives the folder its name, in place of what has it. Throws as the constructor does.
  void publish();

 private:
  std::filesystem::path name_;
  bool overwrite_;
  std::filesystem::path temporary_;  // empty: nothing to remove
};

}  // namespace poseidon::caffe
