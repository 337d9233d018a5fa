// RecordReader on image files that a list names, with the real reader: the child decodes them.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "base/philox.h"
#include "engines/caffe/data/record_reader.h"
#include "tests/caffe/data/data_bases.h"

namespace poseidon::caffe {
namespace {

using testing_data::error_of;
using testing_data::TemporaryFolder;
using testing_data::write_file;
using testing_data::write_pgm;

class ImageReader : public testing::Test {
 protected:
  // Nine images, [1, 2, 2]: image i has the pixels 10 i, 10 i + 1, ..., and the label i.
  void SetUp() override {
    std::string list;
    for (int i = 0; i < kImages; ++i) {
      write_pgm(folder_ / (std::to_string(i) + ".pgm"), 2, 2, 10 * i);
      list += std::to_string(i) + ".pgm " + std::to_string(i) + "\n";
    }
    write_file(folder_ / "list.txt", list);
  }

  RecordReaderOptions options() const {
    RecordReaderOptions options;
    options.source = folder_ / "list.txt";
    options.images = ImageFiles{.prefix = folder_.path().string() + "/"};
    options.color = ImageColor::kGray;
    options.program = POSEIDON_DATA_PROGRAM_FOR_TESTS;
    return options;
  }
  RecordReaderOptions shuffled(std::uint64_t seed, const std::string& purpose = "data") const {
    RecordReaderOptions wanted = options();
    wanted.images->shuffle = true;
    wanted.images->seed = seed;
    wanted.images->purpose = purpose;
    return wanted;
  }
  static std::vector<int> labels(RecordReaderOptions options, int count) {
    RecordReader reader(std::move(options));
    std::vector<int> all;
    for (int i = 0; i < count; ++i) all.push_back(proto::parse_datum(reader.next().value, "x").label);
    return all;
  }

  static constexpr int kImages = 9;
  TemporaryFolder folder_;
};

TEST_F(ImageReader, YieldsTheListInItsOrderAndBeginsAnew) {
  RecordReader reader(options());
  EXPECT_EQ(reader.size(), 9u);
  for (int i = 0; i < 20; ++i) {
    const Record record = reader.next();
    EXPECT_EQ(record.index, static_cast<std::uint64_t>(i));
    EXPECT_EQ(record.key, std::to_string(i % 9) + ".pgm");
    const proto::Datum datum = proto::parse_datum(record.value, "x");
    EXPECT_FALSE(datum.encoded);
    EXPECT_EQ(datum.label, i % 9);
    std::string pixels;
    for (int pixel = 0; pixel < 4; ++pixel) pixels += static_cast<char>(10 * (i % 9) + pixel);
    EXPECT_EQ(datum.bytes, pixels);
  }
}

TEST_F(ImageReader, TakesItsPartOfEachGlobalBatch) {
  RecordReaderOptions second = options();
  second.first = 2;
  second.take = 2;
  second.skip = 4;
  EXPECT_EQ(labels(second, 8), (std::vector<int>{2, 3, 8, 0, 5, 6, 2, 3}));  // 2 3 8 9 14 15 20 21 modulo 9
}

TEST_F(ImageReader, BringsImagesToASizeAndThreeColours) {
  RecordReaderOptions wanted = options();
  wanted.color = ImageColor::kColor;
  wanted.images->width = 3;
  wanted.images->height = 5;
  RecordReader reader(wanted);
  const proto::Datum datum = proto::parse_datum(reader.next().value, "x");
  EXPECT_EQ(datum.channels, 3);
  EXPECT_EQ(datum.height, 5);
  EXPECT_EQ(datum.width, 3);
  EXPECT_EQ(datum.bytes.substr(0, 15), datum.bytes.substr(30));  // gray: blue is red
}

TEST_F(ImageReader, ShufflesEveryPassAnew) {
  const std::vector<int> three_passes = labels(shuffled(5), 27);
  std::vector<std::vector<int>> passes;
  for (int pass = 0; pass < 3; ++pass) {
    passes.emplace_back(three_passes.begin() + 9 * pass, three_passes.begin() + 9 * (pass + 1));
    std::vector<int> sorted = passes.back();
    std::sort(sorted.begin(), sorted.end());
    std::vector<int> all(9);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(sorted, all);
    // Fisher and Yates from the end on, one draw of 64 bits for each place.
    const base::RandomStream random(5, "data");
    std::vector<int> order = all;
    for (std::size_t i = 8; i > 0; --i) {
      const base::PhiloxCounter words = random.words(static_cast<std::uint64_t>(pass), i + 1, 0);
      std::swap(order[i], order[((std::uint64_t{words[0]} << 32) + words[1]) % (i + 1)]);
    }
    EXPECT_EQ(passes.back(), order);
  }
  EXPECT_NE(passes[0], passes[1]);
  EXPECT_NE(passes[1], passes[2]);
  EXPECT_NE(labels(shuffled(6), 9), passes[0]);
  EXPECT_NE(labels(shuffled(5, "other"), 9), passes[0]);
}

TEST_F(ImageReader, ShufflesAlikeForAllWorkers) {
  const std::vector<int> whole = labels(shuffled(5), 36);
  for (std::size_t worker = 0; worker < 3; ++worker) {
    RecordReaderOptions part = shuffled(5);
    part.first = 2 * worker;
    part.take = 2;
    part.skip = 4;
    const std::vector<int> own = labels(part, 12);
    for (std::size_t i = 0; i < own.size(); ++i)
      EXPECT_EQ(own[i], whole[i / 2 * 6 + 2 * worker + i % 2]) << worker << " " << i;
  }
  // And begins in the middle of a later pass as if it had read all before.
  RecordReaderOptions later = shuffled(5);
  later.first = 22;
  EXPECT_EQ(labels(later, 14), std::vector<int>(whole.begin() + 22, whole.end()));
}

TEST_F(ImageReader, YieldsTheSameOnAnyNumberOfThreads) {
  const std::vector<int> reference = labels(shuffled(3), 40);
  for (const char* const threads : {"1", "2", "16"}) {
    ::setenv("POSEIDON_DATA_THREADS", threads, 1);
    EXPECT_EQ(labels(shuffled(3), 40), reference) << threads;
  }
  ::unsetenv("POSEIDON_DATA_THREADS");
}

TEST_F(ImageReader, NamesListLineAndFileOfAnImageThatCannotBeRead) {
  write_file(folder_ / "list.txt", "0.pgm 0\n\nnone.pgm 1\n");
  const auto second_error = [&] {
    RecordReader reader(options());
    static_cast<void>(reader.next());
    return error_of([&] { static_cast<void>(reader.next()); });
  };
  const std::string list = (folder_ / "list.txt").string();
  const std::string missing = second_error();
  EXPECT_EQ(missing.rfind(list + ":3: ", 0), 0u) << missing;
  EXPECT_NE(missing.find((folder_ / "none.pgm").string()), std::string::npos) << missing;

  write_file(folder_ / "none.pgm", "no image");
  EXPECT_EQ(second_error(),
            list + ":3: " + (folder_ / "none.pgm").string() + ": is no image that can be decoded (8 bytes)");
}

TEST_F(ImageReader, ExplainsAListThatCannotBeUsed) {
  const auto error = [&] { return error_of([&] { RecordReader reader(options()); }); };
  write_file(folder_ / "list.txt", "0.pgm zero\n");
  EXPECT_EQ(error(),
            (folder_ / "list.txt").string() + ":1: \"0.pgm zero\" is not a path, a blank and a label (a whole number)");
  write_file(folder_ / "list.txt", "\n");
  EXPECT_EQ(error(), (folder_ / "list.txt").string() + ": lists no image");
  std::filesystem::remove(folder_ / "list.txt");
  EXPECT_NE(error().find((folder_ / "list.txt").string()), std::string::npos);
}

TEST_F(ImageReader, PutsThePrefixBeforeThePathAsItIs) {
  std::filesystem::create_directory(folder_ / "-sub");
  write_pgm(folder_ / "-sub" / "x y.pgm", 1, 1, 7);
  write_file(folder_ / "list.txt", "sub/x y.pgm 4\n");
  RecordReaderOptions wanted = options();
  wanted.images->prefix = (folder_ / "-").string();
  EXPECT_EQ(labels(wanted, 1), std::vector<int>{4});
  write_file(folder_ / "list.txt", (folder_ / "3.pgm").string() + " 5\n");
  wanted.images->prefix = "";
  EXPECT_EQ(labels(wanted, 1), std::vector<int>{5});
}

}  // namespace
}  // namespace poseidon::caffe
