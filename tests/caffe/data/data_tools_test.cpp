// The tools that make, measure and cut data bases.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "engines/caffe/proto/blob_file.h"
#include "engines/caffe/tools/convert_cifar.h"
#include "engines/caffe/tools/convert_mnist.h"
#include "engines/caffe/tools/image_mean.h"
#include "engines/caffe/tools/partition_data.h"
#include "tests/caffe/data/data_bases.h"

namespace poseidon::caffe {
namespace {

using base::concat;
using testing_data::error_of;
using testing_data::numbered_datum;
using testing_data::numbered_key;
using testing_data::TemporaryFolder;
using testing_data::write_file;
using testing_data::write_numbered;

const ProgressFn kQuiet = [](Progress) {};

struct Stored {
  std::string key;
  proto::Datum datum;
};
std::vector<Stored> records_in(const std::filesystem::path& database) {
  std::vector<Stored> all;
  const std::unique_ptr<StoreReader> reader = open_store(database);
  for (std::uint64_t i = 0; i < reader->count(); ++i) {
    reader->move_to(i);
    all.push_back({std::string(reader->key()), proto::parse_datum(reader->value(), "x")});
  }
  return all;
}

std::size_t entries_in(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

// --- MNIST

class ConvertMnist : public testing::Test {
 protected:
  // Two images of 2 rows and 3 columns, labels 7 and 250.
  void SetUp() override {
    write_file(images(), std::string("\0\0\x08\x03\0\0\0\2\0\0\0\2\0\0\0\3", 16) + "abcdefghijk\xFF");
    write_file(labels(), std::string("\0\0\x08\x01\0\0\0\2\x07\xFA", 10));
  }
  std::filesystem::path images() const { return folder_ / "images"; }
  std::filesystem::path labels() const { return folder_ / "labels"; }
  ConvertMnistOptions options() const { return {images(), labels(), folder_ / "db"}; }
  std::string error() const {
    const std::string text = error_of([&] { convert_mnist(options(), kQuiet); });
    EXPECT_FALSE(std::filesystem::exists(folder_ / "db"));
    return text;
  }

  TemporaryFolder folder_;
};

TEST_F(ConvertMnist, WritesEitherKindOfDataBase) {
  ConvertMnistOptions level = options();
  level.backend = Backend::kLevelDb;
  convert_mnist(level, kQuiet);
  EXPECT_EQ(backend_of(folder_ / "db"), Backend::kLevelDb);
  const std::vector<Stored> records = records_in(folder_ / "db");
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[1].key, "00000001");
  EXPECT_EQ(records[1].datum.label, 250);
  EXPECT_EQ(records[1].datum.bytes, "ghijk\xFF");
}

TEST_F(ConvertMnist, WritesImagesWithTheirLabels) {
  const ConvertMnistReport report = convert_mnist(options(), kQuiet);
  EXPECT_EQ(report.records, 2u);
  EXPECT_EQ(report.rows, 2u);
  EXPECT_EQ(report.columns, 3u);
  EXPECT_EQ(report.labels, 2u);
  const std::vector<Stored> all = records_in(folder_ / "db");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].key, "00000000");
  EXPECT_EQ(all[1].key, "00000001");
  EXPECT_EQ(all[0].datum.label, 7);
  EXPECT_EQ(all[1].datum.label, 250);
  EXPECT_EQ(all[0].datum.channels, 1);
  EXPECT_EQ(all[0].datum.height, 2);
  EXPECT_EQ(all[0].datum.width, 3);
  EXPECT_EQ(all[0].datum.bytes, "abcdef");
  EXPECT_EQ(all[1].datum.bytes, "ghijk\xFF");
  EXPECT_EQ(entries_in(folder_.path()), 3u);
}

TEST_F(ConvertMnist, ChecksTheMagicNumbers) {
  EXPECT_EQ(error_of([&] { convert_mnist({labels(), images(), folder_ / "db"}, kQuiet); }),
            labels().string() + ": is no file of images: it has 10 bytes, fewer than 16");
  write_file(labels(), std::string("\0\0\x08\x03\0\0\0\2\x07\xFA", 10));
  EXPECT_EQ(error(),
            labels().string() +
                ": is no file of labels: its magic number is 2051 and should be 2049; the images come first, then "
                "the labels");
  write_file(images(), std::string(30, 'x'));
  EXPECT_NE(error().find("is no file of images: its magic number is 2021161080 and should be 2051"), std::string::npos);
  write_file(images(), "\x1F\x8B\x08 and so on");
  EXPECT_EQ(error(), images().string() + ": is compressed; gunzip it first");
}

TEST_F(ConvertMnist, ChecksTheSizes) {
  write_file(labels(), std::string("\0\0\x08\x01\0\0\0\3\x07\xFA\x01", 11));
  EXPECT_EQ(error(), images().string() + " has 2 images, and " + labels().string() + " has 3 labels");
  write_file(labels(), std::string("\0\0\x08\x01\0\0\0\2\x07", 9));
  EXPECT_EQ(error(),
            labels().string() + ": has 9 bytes and should have 10 for 2 labels; it is truncated, get it again");
  write_file(images(), std::string("\0\0\x08\x03\0\0\0\2\0\0\0\2\0\0\0\3", 16) + "abc");
  EXPECT_NE(error().find("has 19 bytes and should have 28 for 2 images of 2 x 3; it is truncated"), std::string::npos);
  // Extents whose product does not fit 64 bits.
  write_file(images(), std::string("\0\0\x08\x03\0\0\0\2\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 16));
  EXPECT_NE(error().find("has 2 images of 4294967295 x 4294967295 pixels, of which no data base can be made"),
            std::string::npos);
  EXPECT_NE(error_of([&] { convert_mnist({folder_ / "none", labels(), folder_ / "db"}, kQuiet); }).find("none"),
            std::string::npos);
}

TEST_F(ConvertMnist, LeavesNothingWhenItIsInterrupted) {
  EXPECT_THROW(convert_mnist(options(), [](Progress) { throw 1; }), int);
  EXPECT_EQ(entries_in(folder_.path()), 2u);
}

// --- CIFAR-10

class ConvertCifar : public testing::Test {
 protected:
  // One image in each batch but the third, which has two. Image n has the label n and the red pixels n, green 10 + n,
  // blue 20 + n.
  void SetUp() override {
    std::filesystem::create_directory(folder_ / "in");
    std::filesystem::create_directory(folder_ / "out");
    write_file(folder_ / "in" / "data_batch_1.bin", record(0));
    write_file(folder_ / "in" / "data_batch_2.bin", record(1));
    write_file(folder_ / "in" / "data_batch_3.bin", record(2) + record(3));
    write_file(folder_ / "in" / "data_batch_4.bin", record(4));
    write_file(folder_ / "in" / "data_batch_5.bin", record(5));
    write_file(folder_ / "in" / "test_batch.bin", record(9));
  }
  static std::string planes(int number) {
    std::string pixels;
    for (int plane = 0; plane < 3; ++plane) pixels += std::string(1024, static_cast<char>(10 * plane + number));
    return pixels;
  }
  static std::string record(int number) { return static_cast<char>(number) + planes(number); }
  ConvertCifarOptions options() const { return {folder_ / "in", folder_ / "out"}; }
  std::string error() const {
    const std::string text = error_of([&] { convert_cifar(options(), kQuiet); });
    EXPECT_EQ(entries_in(folder_ / "out"), 0u);
    return text;
  }

  TemporaryFolder folder_;
};

TEST_F(ConvertCifar, WritesBothDataBases) {
  const ConvertCifarReport report = convert_cifar(options(), kQuiet);
  EXPECT_EQ(report.train_records, 6u);
  EXPECT_EQ(report.test_records, 1u);
  const std::vector<Stored> train = records_in(folder_ / "out" / "cifar10_train_lmdb");
  ASSERT_EQ(train.size(), 6u);
  for (int i = 0; i < 6; ++i) {
    const Stored& stored = train[static_cast<std::size_t>(i)];
    EXPECT_EQ(stored.key, "0000" + std::to_string(i));
    EXPECT_EQ(stored.datum.label, i);
    EXPECT_EQ(stored.datum.channels, 3);
    EXPECT_EQ(stored.datum.height, 32);
    EXPECT_EQ(stored.datum.width, 32);
    EXPECT_EQ(stored.datum.bytes, planes(i));
  }
  const std::vector<Stored> test = records_in(folder_ / "out" / "cifar10_test_lmdb");
  ASSERT_EQ(test.size(), 1u);
  EXPECT_EQ(test[0].key, "00000");
  EXPECT_EQ(test[0].datum.label, 9);
}

TEST_F(ConvertCifar, ExplainsWrongFiles) {
  write_file(folder_ / "in" / "data_batch_4.bin", record(10));
  EXPECT_EQ(error(), (folder_ / "in" / "data_batch_4.bin").string() +
                         ": image 0 has the label 10; those of CIFAR-10 are 0 to 9");
  write_file(folder_ / "in" / "data_batch_4.bin", record(3).substr(1));
  EXPECT_EQ(error(),
            (folder_ / "in" / "data_batch_4.bin").string() +
                ": has 3072 bytes, and a batch of CIFAR-10 has 3073 for each image; it is truncated, or another "
                "data set");
  std::filesystem::remove(folder_ / "in" / "data_batch_4.bin");
  EXPECT_NE(error().find("data_batch_4.bin"), std::string::npos);
}

TEST_F(ConvertCifar, OverwritesBothOrNone) {
  write_numbered(folder_ / "out" / "cifar10_test_lmdb", 3, 1);
  EXPECT_NE(error_of([&] { convert_cifar(options(), kQuiet); }).find("exists already"), std::string::npos);
  EXPECT_EQ(entries_in(folder_ / "out"), 1u);
  ConvertCifarOptions overwriting = options();
  overwriting.overwrite = true;
  convert_cifar(overwriting, kQuiet);
  EXPECT_EQ(records_in(folder_ / "out" / "cifar10_test_lmdb").size(), 1u);
}

// --- Means

class ImageMeans : public testing::Test {
 protected:
  void SetUp() override { ::setenv("POSEIDON_DATA_PROGRAM", POSEIDON_DATA_PROGRAM_FOR_TESTS, 1); }
  void write(const std::vector<proto::Datum>& data) const {
    LmdbWriter writer({folder_ / "db"});
    for (std::size_t i = 0; i < data.size(); ++i) {
      writer.append(numbered_key(static_cast<int>(i)), proto::datum_bytes(data[i]));
    }
    writer.finish();
  }
  static proto::Datum datum(int channels, int height, int width, std::string bytes) {
    proto::Datum made;
    made.channels = channels;
    made.height = height;
    made.width = width;
    made.bytes = std::move(bytes);
    return made;
  }

  TemporaryFolder folder_;
};

TEST_F(ImageMeans, AreTakenPixelByPixel) {
  // Two channels of two pixels.
  write({datum(2, 1, 2, std::string("\x00\x02\x04\xFF", 4)), datum(2, 1, 2, std::string("\x01\x02\x08\xFF", 4)),
         datum(2, 1, 2, std::string("\x05\x02\x00\xFF", 4))});
  const ImageMean mean = image_mean(folder_ / "db", std::nullopt, kQuiet);
  EXPECT_EQ(mean.records, 3u);
  EXPECT_EQ(mean.image.shape, (std::vector<std::int64_t>{1, 2, 1, 2}));
  EXPECT_EQ(std::get<std::vector<float>>(mean.image.values), (std::vector<float>{2, 2, 4, 255}));
  EXPECT_EQ(mean.channels, (std::vector<double>{2, 129.5}));
}

TEST_F(ImageMeans, AreThoseOfAPlainLoop) {
  std::mt19937 random(5);
  std::vector<proto::Datum> data;
  std::vector<double> sums(12, 0);
  for (int i = 0; i < 230; ++i) {
    std::string bytes;
    for (std::size_t p = 0; p < 12; ++p) {
      const auto value = static_cast<unsigned char>(random() % 256);
      bytes += static_cast<char>(value);
      sums[p] += value;
    }
    data.push_back(datum(3, 2, 2, bytes));
  }
  write(data);
  const ImageMean mean = image_mean(folder_ / "db", std::nullopt, kQuiet);
  const auto& values = std::get<std::vector<float>>(mean.image.values);
  ASSERT_EQ(values.size(), 12u);
  for (std::size_t p = 0; p < 12; ++p) EXPECT_EQ(values[p], static_cast<float>(sums[p] / 230));
  for (std::size_t c = 0; c < 3; ++c) {
    const double sum = sums[4 * c] + sums[4 * c + 1] + sums[4 * c + 2] + sums[4 * c + 3];
    EXPECT_NEAR(mean.channels[c], sum / 920, 1e-12);
  }
}

TEST_F(ImageMeans, TakeFloatsAndEncodedImages) {
  proto::Datum floats = datum(1, 1, 2, "");
  floats.floats = {0.5F, -3};
  proto::Datum encoded;
  encoded.encoded = true;
  encoded.bytes = "P5\n2 1\n255\n\x02\x05";
  write({floats, encoded});
  EXPECT_EQ(std::get<std::vector<float>>(image_mean(folder_ / "db", std::nullopt, kQuiet).image.values),
            (std::vector<float>{1.25F, 1}));
}

TEST_F(ImageMeans, NeedImagesOfOneSize) {
  write({numbered_datum(0, 2), numbered_datum(1, 3)});
  EXPECT_EQ(error_of([&] { static_cast<void>(image_mean(folder_ / "db", std::nullopt, kQuiet)); }),
            (folder_ / "db").string() +
                ": record 1 (key 00000001): is [1, 3, 3] and the first image is [1, 2, 2]; a mean "
                "image needs images of one size");
  EXPECT_NE(error_of([&] { static_cast<void>(image_mean(folder_ / "none", std::nullopt, kQuiet)); })
                .find("there is no data base"),
            std::string::npos);
}

TEST_F(ImageMeans, AreTakenOfALevelDbWhoseSizeIsUnknown) {
  for (const int count : {1, 5}) {
    write_numbered(folder_ / concat("level_", count), count, 2, Backend::kLevelDb);
    const ImageMean mean = image_mean(folder_ / concat("level_", count), Backend::kLevelDb, kQuiet);
    EXPECT_EQ(mean.records, static_cast<std::size_t>(count));
    const auto middle = static_cast<float>((count - 1) / 2);  // of 0, 1, ..., count - 1
    EXPECT_EQ(std::get<std::vector<float>>(mean.image.values), std::vector<float>(4, middle));
  }
  EXPECT_NE(error_of([&] { static_cast<void>(image_mean(folder_ / "level_5", Backend::kLmdb, kQuiet)); })
                .find("--backend leveldb"),
            std::string::npos);
}

// --- Parts

std::vector<std::vector<int>> labels_in(const std::vector<DataPart>& parts) {
  std::vector<std::vector<int>> labels;
  for (const DataPart& part : parts) {
    std::vector<int> own;
    for (const Stored& stored : records_in(part.database)) {
      EXPECT_EQ(stored.key, numbered_key(stored.datum.label));
      EXPECT_EQ(stored.datum.bytes, numbered_datum(stored.datum.label, 2).bytes);
      own.push_back(stored.datum.label);
    }
    EXPECT_EQ(own.size(), part.records);
    labels.push_back(own);
  }
  return labels;
}

class PartitionData : public testing::Test {
 protected:
  void SetUp() override { ::setenv("POSEIDON_DATA_PROGRAM", POSEIDON_DATA_PROGRAM_FOR_TESTS, 1); }
};

TEST_F(PartitionData, CutsRuns) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 8, 2);
  const std::vector<DataPart> parts = partition_data({folder / "db", 3}, kQuiet);
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[2].database, folder / "db_2");
  EXPECT_EQ(labels_in(parts), (std::vector<std::vector<int>>{{0, 1, 2}, {3, 4, 5}, {6, 7}}));
}

TEST_F(PartitionData, MakesPartsOfTheKindOfTheWhole) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 5, 2, Backend::kLevelDb);
  const std::vector<DataPart> parts = partition_data({.database = folder / "db", .parts = 2, .name = {}}, kQuiet);
  for (const DataPart& part : parts) EXPECT_EQ(backend_of(part.database), Backend::kLevelDb);
  EXPECT_EQ(labels_in(parts), (std::vector<std::vector<int>>{{0, 1, 2}, {3, 4}}));
}

TEST_F(PartitionData, DealsInTurn) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 8, 2);
  const PartitionDataOptions options{
      .database = folder.path() / "db/", .parts = 3, .in_turn = true, .name = folder / "part"};
  const std::vector<DataPart> parts = partition_data(options, kQuiet);
  EXPECT_EQ(parts[0].database, folder / "part_0");
  EXPECT_EQ(labels_in(parts), (std::vector<std::vector<int>>{{0, 3, 6}, {1, 4, 7}, {2, 5}}));
}

TEST_F(PartitionData, GivesEveryRecordToOnePart) {
  std::mt19937 random(9);
  for (int round = 0; round < 6; ++round) {
    const TemporaryFolder folder;
    const int count = 1 + static_cast<int>(random() % 40);
    write_numbered(folder / "db", count, 2);
    const std::size_t parts = 1 + random() % static_cast<unsigned>(count);
    for (const bool in_turn : {false, true}) {
      std::vector<int> seen(static_cast<std::size_t>(count), 0);
      std::size_t most = 0;
      std::size_t least = static_cast<std::size_t>(count);
      const auto made = partition_data(
          {.database = folder / "db", .parts = parts, .in_turn = in_turn, .name = {}, .overwrite = true}, kQuiet);
      for (const std::vector<int>& part : labels_in(made)) {
        for (const int label : part) ++seen[static_cast<std::size_t>(label)];
        most = std::max(most, part.size());
        least = std::min(least, part.size());
      }
      EXPECT_EQ(seen, std::vector<int>(static_cast<std::size_t>(count), 1));
      EXPECT_LE(most - least, 1u);
    }
  }
}

TEST_F(PartitionData, MakesAllPartsOrNone) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 8, 2);
  write_numbered(folder / "db_2", 1, 2);
  EXPECT_NE(error_of([&] { partition_data({folder / "db", 3}, kQuiet); }).find("db_2 exists already"),
            std::string::npos);
  EXPECT_EQ(entries_in(folder.path()), 2u);
  EXPECT_EQ(error_of([&] { partition_data({folder / "db", 9}, kQuiet); }),
            (folder / "db").string() + " has 8 records, which cannot be cut into 9 parts");
  EXPECT_EQ(error_of([&] { partition_data({folder / "db", 0}, kQuiet); }),
            (folder / "db").string() + " has 8 records, which cannot be cut into 0 parts");
}

TEST_F(PartitionData, KeepsBytesThatAreNoPlainDatum) {
  const TemporaryFolder folder;
  proto::Datum image;
  image.encoded = true;
  image.bytes = "P5\n2 1\n255\n\x02\x05";
  const std::vector<std::string> values = {proto::datum_bytes(image), "no Datum at all", ""};
  for (const Backend backend : {Backend::kLmdb, Backend::kLevelDb}) {
    const std::filesystem::path whole = folder / concat("db_", flag_of(backend));
    const std::unique_ptr<StoreWriter> writer = create_store({whole, backend});
    for (std::size_t i = 0; i < values.size(); ++i) writer->append(numbered_key(static_cast<int>(i)), values[i]);
    writer->finish();
    std::vector<std::string> seen;
    for (const DataPart& part : partition_data({.database = whole, .parts = 3, .name = {}}, kQuiet)) {
      const std::unique_ptr<StoreReader> reader = open_store(part.database);
      reader->move_to(0);
      seen.emplace_back(reader->value());
    }
    EXPECT_EQ(seen, values);
  }
}

// An LMDB that is cut short kills who reads it; in a LevelDB checksums do not fit from half of each table on.
void damage(const std::filesystem::path& database) {
  for (const auto& entry : std::filesystem::directory_iterator(database)) {
    if (entry.path().filename() == kLmdbFile) std::filesystem::resize_file(entry.path(), 200'000);
    if (entry.path().extension() != ".ldb") continue;
    std::fstream file(entry.path(), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(entry.file_size() / 2));
    file.put('\x5A').put('\xA5');
  }
}

TEST_F(PartitionData, LeavesNothingWhenItsSourceBreaksMidway) {
  for (const bool in_turn : {false, true}) {
    for (const Backend backend : {Backend::kLmdb, Backend::kLevelDb}) {
      const TemporaryFolder folder;
      write_numbered(folder / "db", 3000, 60, backend);
      bool was_writing = false;
      const ProgressFn break_source = [&](Progress progress) {
        if (progress.total == 0 || progress.done != 2000) return;  // counting, or in another part
        was_writing = entries_in(folder.path()) == 3;              // the first part is sealed, the second begun
        damage(folder / "db");
      };
      const std::string error = error_of([&] {
        partition_data({.database = folder / "db", .parts = 2, .in_turn = in_turn, .name = folder / "part"},
                       break_source);
      });
      EXPECT_TRUE(was_writing);
      EXPECT_NE(error.find((folder / "db").string() + " is damaged near record "), std::string::npos) << error;
      EXPECT_EQ(entries_in(folder.path()), 1u);
    }
  }
}

}  // namespace
}  // namespace poseidon::caffe
