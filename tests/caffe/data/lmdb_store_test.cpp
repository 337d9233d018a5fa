#include "engines/caffe/data/lmdb_store.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engines/caffe/proto/system_error.h"
#include "tests/caffe/data/data_bases.h"

namespace poseidon::caffe {
namespace {

using testing_data::error_of;
using testing_data::numbered_key;
using testing_data::TemporaryFolder;
using testing_data::write_file;
using testing_data::write_numbered;

std::string opening(const std::filesystem::path& folder) {
  return error_of([&] { open_store(folder); });
}

std::size_t entries_in(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

TEST(LmdbStore, GivesBackRecordsInTheOrderOfTheirKeys) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 1000, 4);
  LmdbReader reader(folder / "db");
  ASSERT_EQ(reader.count(), 1000u);
  for (const int place : {0, 1, 2, 500, 999, 3, 0}) {
    reader.move_to(static_cast<std::uint64_t>(place));
    EXPECT_EQ(reader.position(), static_cast<std::uint64_t>(place));
    EXPECT_EQ(reader.key(), numbered_key(place));
    EXPECT_EQ(proto::parse_datum(reader.value(), "x").label, place);
  }
}

TEST(LmdbStore, GrowsBeyondItsFirstMap) {
  // 30 MB of small and large records into a map of 1 MiB: it is full in the middle of transactions, and at their ends.
  const TemporaryFolder folder;
  const auto value_of = [](int number) {
    return std::string(number % 100 == 0 ? 200'000 : 100, static_cast<char>(number % 251));
  };
  {
    LmdbWriter writer({folder / "db", false, 1 << 20});
    for (int i = 0; i < 12'000; ++i) writer.append(numbered_key(i), value_of(i));
    writer.finish();
  }
  LmdbReader reader(folder / "db");
  ASSERT_EQ(reader.count(), 12'000u);
  for (int i = 0; i < 12'000; ++i) {
    reader.move_to(static_cast<std::uint64_t>(i));
    ASSERT_EQ(reader.key(), numbered_key(i));
    ASSERT_EQ(reader.value(), value_of(i));
  }
}

TEST(LmdbStore, LeavesNothingWhereItWasNotFinished) {
  const TemporaryFolder folder;
  {
    LmdbWriter writer({folder / "db"});
    writer.append("a", "b");
    EXPECT_FALSE(std::filesystem::exists(folder / "db"));
    EXPECT_EQ(entries_in(folder.path()), 1u);
  }
  EXPECT_EQ(entries_in(folder.path()), 0u);
}

TEST(LmdbStore, OverwritesOnlyWhenAskedAndOnlyDataBases) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 3, 2);
  EXPECT_NE(error_of([&] {
              LmdbWriter writer({folder / "db"});
            }).find("exists already; remove it, choose another name, or give --overwrite"),
            std::string::npos);
  {
    LmdbWriter writer({folder / "db", true});
    writer.append("k", "v");
    EXPECT_EQ(LmdbReader(folder / "db").count(), 3u);  // the old one, until the end
    writer.finish();
  }
  EXPECT_EQ(LmdbReader(folder / "db").count(), 1u);
  EXPECT_EQ(entries_in(folder.path()), 1u);

  std::filesystem::create_directory(folder / "photos");
  write_file(folder / "photos" / "data.mdb", "x");
  write_file(folder / "photos" / "holiday.jpg", "x");
  EXPECT_NE(error_of([&] {
              LmdbWriter writer({folder / "photos", true});
            }).find("is no data base, so it is not overwritten"),
            std::string::npos);
}

TEST(LmdbStore, RefusesKeysThatAreTooLongOrOutOfOrder) {
  const TemporaryFolder folder;
  LmdbWriter writer({folder / "db"});
  EXPECT_EQ(writer.key_bytes_max(), 511u);
  writer.append("b", "1");
  EXPECT_NE(error_of([&] { writer.append("a", "2"); }).find("does not come after"), std::string::npos);
  EXPECT_NE(error_of([&] { writer.append(std::string(512, 'c'), "2"); }).find("has 512 bytes"), std::string::npos);
}

TEST(LmdbStore, SaysThatItCannotBeMadeWhereThereIsNoFolder) {
  const TemporaryFolder folder;
  EXPECT_THROW(LmdbWriter({folder / "no" / "such" / "db"}), SystemError);
}

TEST(LmdbStore, SaysWhatIsWrongWithAFolder) {
  const TemporaryFolder folder;
  EXPECT_NE(opening(folder / "none").find("there is no data base"), std::string::npos);
  write_file(folder / "file", "x");
  EXPECT_NE(opening(folder / "file").find("is a file; a data base is a folder"), std::string::npos);
  std::filesystem::create_directory(folder / "empty");
  EXPECT_NE(opening(folder / "empty").find("has neither a file data.mdb, as an LMDB has, nor a file CURRENT"),
            std::string::npos);
  write_file(folder / "empty" / "data.mdb", "");
  EXPECT_NE(opening(folder / "empty").find("data.mdb is empty"), std::string::npos);
  write_file(folder / "empty" / "data.mdb", std::string(10'000, 'x'));
  EXPECT_NE(opening(folder / "empty").find("is not an LMDB file"), std::string::npos);

  {
    LmdbWriter writer({folder / "no_records"});
    writer.finish();
  }
  EXPECT_NE(opening(folder / "no_records").find("without a single record"), std::string::npos);
}

TEST(LmdbStore, NoticesATruncatedFileBeforeItIsRead) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 100, 100);
  const std::filesystem::path file = folder / "db" / "data.mdb";
  const auto size = std::filesystem::file_size(file);
  for (const std::uintmax_t kept :
       {size - 1, size - 4096, size / 2, std::uintmax_t{3 * 4096}, std::uintmax_t{2 * 4096}}) {
    std::filesystem::resize_file(file, kept);
    EXPECT_EQ(opening(folder / "db"), (folder / "db").string() + " is truncated: its data.mdb has " +
                                          std::to_string(kept) + " bytes and should have " + std::to_string(size) +
                                          "; copy or create it again");
  }
  std::filesystem::resize_file(file, 5000);
  EXPECT_NE(opening(folder / "db"), "(no error)");
}

TEST(LmdbStore, IsReadWithoutAnyRightToWriteAndByManyAtOnce) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 10, 2);
  EXPECT_EQ(entries_in(folder / "db"), 1u);  // no lock file is made, not by readers either
  ::chmod((folder / "db").c_str(), 0555);
  ::chmod((folder / "db" / "data.mdb").c_str(), 0444);
  {
    std::vector<std::unique_ptr<LmdbReader>> readers;
    for (int i = 0; i < 200; ++i)
      readers.push_back(std::make_unique<LmdbReader>(folder / "db"));  // LMDB's own limit is 126
    readers.back()->move_to(9);
    EXPECT_EQ(readers.back()->key(), numbered_key(9));
  }
  EXPECT_EQ(entries_in(folder / "db"), 1u);
  ::chmod((folder / "db").c_str(), 0755);
}

}  // namespace
}  // namespace poseidon::caffe
