#include "engines/caffe/data/leveldb_store.h"

#include <leveldb/db.h>
#include <sys/stat.h>

#include <map>

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

// Names and bytes of all files.
std::map<std::string, std::string> contents(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(entry.path(), std::ios::binary);
    files[entry.path().filename().string()] = {std::istreambuf_iterator<char>(in), {}};
  }
  return files;
}

// By the library itself, as Caffe's tools write: what came last stays in the log.
void write_as_caffe_does(const std::filesystem::path& folder, int count, std::size_t value_bytes,
                         std::size_t buffer_bytes) {
  leveldb::Options options;
  options.create_if_missing = true;
  options.write_buffer_size = buffer_bytes;
  leveldb::DB* opened = nullptr;
  ASSERT_TRUE(leveldb::DB::Open(options, folder.string(), &opened).ok());
  const std::unique_ptr<leveldb::DB> data_base(opened);
  for (int i = count - 1; i >= 0; --i) {
    data_base->Put({}, numbered_key(i), std::string(value_bytes, static_cast<char>(i % 251)));
  }
}

TEST(LevelDbStore, GivesBackRecordsInTheOrderOfTheirKeys) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 3000, 4, Backend::kLevelDb);
  const std::unique_ptr<StoreReader> reader = open_store(folder / "db");
  EXPECT_EQ(reader->known_count(), std::nullopt);
  for (const int place : {0, 1, 2, 500, 2999, 3, 0}) {
    reader->move_to(static_cast<std::uint64_t>(place));
    EXPECT_EQ(reader->position(), static_cast<std::uint64_t>(place));
    EXPECT_EQ(reader->key(), numbered_key(place));
    EXPECT_EQ(proto::parse_datum(reader->value(), "x").label, place);
  }
  reader->move_to(7);
  EXPECT_EQ(reader->count(), 3000u);
  EXPECT_EQ(reader->position(), 7u);
  EXPECT_EQ(reader->known_count(), 3000u);
}

TEST(LevelDbStore, FindsRecordsModuloTheirNumber) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 7, 1, Backend::kLevelDb);
  for (const std::uint64_t index : {0, 6, 7, 8, 13, 14, 700'000'004}) {
    LevelDbReader reader(folder / "db");
    reader.move_to(3);
    reader.seek(index, [] {});
    EXPECT_EQ(reader.key(), numbered_key(static_cast<int>(index % 7)));
    EXPECT_EQ(reader.position(), index % 7);
  }
}

TEST(LevelDbStore, CallsWhoeverWaitsNowAndThen) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 1000, 1, Backend::kLevelDb);
  LevelDbReader reader(folder / "db");
  int calls = 0;
  reader.seek(999, [&] { ++calls; });
  EXPECT_EQ(calls, 4);  // at 0, 256, 512 and 768
}

TEST(LevelDbStore, ReadsWhatTheLibraryHasLeftInItsLog) {
  const TemporaryFolder folder;
  write_as_caffe_does(folder / "db", 2000, 1000, std::size_t{256} << 20);  // all of it
  LevelDbReader reader(folder / "db");
  EXPECT_EQ(reader.count(), 2000u);
  reader.move_to(1234);
  EXPECT_EQ(reader.value(), std::string(1000, static_cast<char>(1234 % 251)));
}

TEST(LevelDbStore, IsReadWithoutAnyRightToWriteAndByManyAtOnce) {
  const TemporaryFolder folder;
  // Many small tables, which the library wishes to compact when it opens them.
  write_as_caffe_does(folder / "db", 4000, 1000, 100'000);
  const std::map<std::string, std::string> before = contents(folder / "db");
  ::chmod((folder / "db").c_str(), 0555);
  {
    std::vector<std::unique_ptr<LevelDbReader>> readers;
    for (int i = 0; i < 5; ++i) readers.push_back(std::make_unique<LevelDbReader>(folder / "db"));
    for (const auto& reader : readers) {
      reader->move_to(3999);
      EXPECT_EQ(reader->key(), numbered_key(3999));
    }
    EXPECT_EQ(readers.back()->count(), 4000u);
  }
  EXPECT_EQ(contents(folder / "db"), before);
  ::chmod((folder / "db").c_str(), 0755);
}

TEST(LevelDbStore, WritesWhatTheLibraryReads) {
  const TemporaryFolder folder;
  {
    LevelDbWriter writer({folder / "db"});
    for (int i = 0; i < 2500; ++i) writer.append(numbered_key(i), std::string(i % 100, 'x'));
    EXPECT_FALSE(std::filesystem::exists(folder / "db"));
    writer.finish();
  }
  // Nothing is left in the log, which each reader would have to read.
  for (const auto& [name, bytes] : contents(folder / "db")) {
    if (name.ends_with(".log")) {
      EXPECT_EQ(bytes, "") << name;
    }
  }
  leveldb::DB* opened = nullptr;
  ASSERT_TRUE(leveldb::DB::Open({}, (folder / "db").string(), &opened).ok());
  const std::unique_ptr<leveldb::DB> data_base(opened);
  std::string value;
  ASSERT_TRUE(data_base->Get({}, numbered_key(2487), &value).ok());
  EXPECT_EQ(value, std::string(87, 'x'));
}

TEST(LevelDbStore, LeavesNothingWhereItWasNotFinishedAndReplacesOlderOnesOfAnyKind) {
  const TemporaryFolder folder;
  { LevelDbWriter({folder / "db"}).append("a", "b"); }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  write_numbered(folder / "db", 3, 2);
  EXPECT_NE(error_of([&] { LevelDbWriter writer({folder / "db"}); }).find("exists already"), std::string::npos);
  LevelDbWriter writer({folder / "db", true});
  writer.append("k", "v");
  writer.finish();
  EXPECT_EQ(backend_of(folder / "db"), Backend::kLevelDb);
  EXPECT_EQ(LevelDbReader(folder / "db").count(), 1u);
}

TEST(LevelDbStore, RefusesKeysThatAreTooLongOrOutOfOrder) {
  const TemporaryFolder folder;
  LevelDbWriter writer({folder / "db"});
  writer.append("b", "1");
  EXPECT_NE(error_of([&] { writer.append("a", "2"); }).find("does not come after"), std::string::npos);
  EXPECT_NE(error_of([&] { writer.append("b", "2"); }).find("does not come after"), std::string::npos);
  EXPECT_NE(error_of([&] { writer.append(std::string(4097, 'c'), "2"); }).find("has 4097 bytes"), std::string::npos);
}

TEST(LevelDbStore, SaysWhatIsWrongWithAFolder) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "db");
  write_file(folder / "db" / "CURRENT", "x");
  EXPECT_NE(opening(folder / "db").find("the LevelDB " + (folder / "db").string() + " cannot be read: "),
            std::string::npos);
  {
    LevelDbWriter writer({folder / "no_records"});
    writer.finish();
  }
  EXPECT_NE(opening(folder / "no_records").find("without a single record"), std::string::npos);
  // A table that is missing.
  write_numbered(folder / "gone", 1000, 10, Backend::kLevelDb);
  for (const auto& entry : std::filesystem::directory_iterator(folder / "gone")) {
    if (entry.path().extension() == ".ldb") std::filesystem::remove(entry.path());
  }
  EXPECT_NE(opening(folder / "gone").find("missing"), std::string::npos) << opening(folder / "gone");
}

TEST(LevelDbStore, NoticesDamageByItsChecksums) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 1000, 10, Backend::kLevelDb);
  for (const auto& entry : std::filesystem::directory_iterator(folder / "db")) {
    if (entry.path().extension() != ".ldb") continue;
    std::fstream file(entry.path(), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(entry.file_size() / 2));
    file.put('\x5A').put('\xA5');
  }
  const std::string error = error_of([&] { LevelDbReader(folder / "db").count(); });
  EXPECT_NE(error.find(" is damaged near record "), std::string::npos) << error;
  EXPECT_NE(error.find("checksum"), std::string::npos) << error;
}

}  // namespace
}  // namespace poseidon::caffe
