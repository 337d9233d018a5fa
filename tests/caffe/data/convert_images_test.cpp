#include "engines/caffe/tools/convert_images.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>

#include "engines/caffe/data/image_file.h"
#include "engines/caffe/data/image_list.h"
#include "engines/caffe/data/record_reader.h"
#include "tests/caffe/data/data_bases.h"

namespace poseidon::caffe {
namespace {

using testing_data::error_of;
using testing_data::TemporaryFolder;
using testing_data::write_file;
using testing_data::write_pgm;

struct Outcome {
  int code = 0;
  std::string output;  // both streams
};
Outcome run(const std::string& arguments, const std::string& before = "") {
  const std::string command = before + "'" POSEIDON_DATA_PROGRAM_FOR_TESTS "' convert-images " + arguments + " 2>&1";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  Outcome outcome;
  std::array<char, 1000> part{};
  while (std::fgets(part.data(), part.size(), pipe) != nullptr) outcome.output += part.data();
  const int status = ::pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

// Every record of a data base, by key.
std::map<std::string, proto::Datum> records_in(const std::filesystem::path& database) {
  std::map<std::string, proto::Datum> all;
  LmdbReader reader(database);
  for (std::uint64_t i = 0; i < reader.count(); ++i) {
    reader.move_to(i);
    all[std::string(reader.key())] = proto::parse_datum(reader.value(), "x");
  }
  return all;
}

class ConvertImages : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder / "in" / "sub folder");
    write_pgm(folder / "in" / "a.pgm", 2, 2);
    write_pgm(folder / "in" / "sub folder" / "b 1.pgm", 2, 2, 100);
    write_file(folder / "list.txt", "a.pgm 7\nsub folder/b 1.pgm 3\r\n\n");
    places = "'" + (folder / "in").string() + "' '" + (folder / "list.txt").string() + "' '" +
             (folder / "db").string() + "'";
  }

  TemporaryFolder folder;
  std::string places;
};

TEST_F(ConvertImages, WritesPixelsLabelsAndCaffesKeys) {
  const Outcome outcome = run("--gray " + places);
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_EQ(outcome.output.substr(0, outcome.output.find(", in ")),
            (folder / "db").string() + ": 2 images [1, 2, 2] with 2 labels");
  const auto records = records_in(folder / "db");
  ASSERT_EQ(records.size(), 2u);
  const proto::Datum& first = records.at("00000000_a.pgm");
  EXPECT_EQ(first.label, 7);
  EXPECT_EQ(first.bytes, std::string("\x00\x01\x02\x03", 4));
  EXPECT_EQ(first.channels, 1);
  const proto::Datum& second = records.at("00000001_sub folder/b 1.pgm");
  EXPECT_EQ(second.label, 3);
  EXPECT_EQ(second.bytes, "\x64\x65\x66\x67");
  // Nothing else is left in the folder.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), std::filesystem::directory_iterator()),
            3);
}

TEST_F(ConvertImages, MakesThreeChannelsBlueFirst) {
  // A PPM of one pixel: red 10, green 20, blue 30.
  write_file(folder / "in" / "a.pgm", "P6\n1 1\n255\n\x0A\x14\x1E");
  write_file(folder / "list.txt", "a.pgm 0\n");
  EXPECT_EQ(run(places).code, 0);
  EXPECT_EQ(records_in(folder / "db").at("00000000_a.pgm").bytes, "\x1E\x14\x0A");
}

TEST_F(ConvertImages, UnderstandsCaffesSpelling) {
  const Outcome outcome =
      run("-gray=true -resize_height 4 --resize_width=6 -backend lmdb -noshuffle --check_size " + places);
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  const proto::Datum datum = records_in(folder / "db").at("00000000_a.pgm");
  EXPECT_EQ(datum.height, 4);
  EXPECT_EQ(datum.width, 6);
}

TEST_F(ConvertImages, ResizesBilinearly) {
  // Columns 0 and 80 become four: with pixel centres at (x + 0.5) / 2 - 0.5 they are 0, 1/4, 3/4 and all of the way.
  write_file(folder / "in" / "a.pgm", std::string("P5\n2 2\n255\n\x00\x50\x00\x50", 15));
  write_file(folder / "list.txt", "a.pgm 0\n");
  EXPECT_EQ(run("--gray --resize-width 4 --resize-height 2 " + places).code, 0);
  EXPECT_EQ(records_in(folder / "db").at("00000000_a.pgm").bytes, std::string("\x00\x14\x3C\x50\x00\x14\x3C\x50", 8));
}

TEST_F(ConvertImages, ShufflesTheSameWayForASeed) {
  std::string list;
  for (int i = 0; i < 50; ++i) list += "a.pgm " + std::to_string(i) + "\n";
  write_file(folder / "list.txt", list);
  const auto labels = [&](const std::string& flags) {
    EXPECT_EQ(run("--gray --overwrite " + flags + " " + places).code, 0);
    std::vector<int> all;
    for (const auto& [key, datum] : records_in(folder / "db")) all.push_back(datum.label);
    return all;
  };
  std::vector<int> in_order(50);
  for (int i = 0; i < 50; ++i) in_order[static_cast<std::size_t>(i)] = i;
  EXPECT_EQ(labels(""), in_order);
  std::vector<int> shuffled = labels("--shuffle --seed 7");
  EXPECT_NE(shuffled, in_order);
  EXPECT_EQ(labels("--shuffle --seed 7"), shuffled);
  EXPECT_NE(labels("--shuffle --seed 8"), shuffled);
  std::sort(shuffled.begin(), shuffled.end());
  EXPECT_EQ(shuffled, in_order);
}

TEST_F(ConvertImages, KeepsEncodedFilesThatAReaderDecodes) {
  const Outcome outcome = run("--gray --encode-type png --resize-width 3 --resize-height 3 " + places);
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  const proto::Datum stored = records_in(folder / "db").at("00000000_a.pgm");
  EXPECT_TRUE(stored.encoded);
  EXPECT_EQ(stored.bytes.substr(1, 3), "PNG");

  RecordReaderOptions options;
  options.source = folder / "db";
  options.program = POSEIDON_DATA_PROGRAM_FOR_TESTS;
  options.take = 1;
  options.skip = 2;
  RecordReader gray(options);
  options.color = ImageColor::kColor;
  RecordReader color(options);
  for (const std::uint64_t index : {0, 3, 6}) {
    const Record record = gray.next();
    EXPECT_EQ(record.index, index);
    const proto::Datum datum = proto::parse_datum(record.value, "x");
    EXPECT_FALSE(datum.encoded);
    EXPECT_EQ(datum.channels, 1);
    EXPECT_EQ(datum.count(), 9u);
    EXPECT_EQ(datum.label, index % 2 == 0 ? 7 : 3);
    const proto::Datum wide = proto::parse_datum(color.next().value, "x");
    EXPECT_EQ(wide.channels, 3);
    EXPECT_EQ(wide.bytes, datum.bytes + datum.bytes + datum.bytes);  // gray in three planes
  }
}

TEST_F(ConvertImages, KeepsTheBytesOfFilesThatDoNotChange) {
  EXPECT_EQ(run("--encoded " + places).code, 0);
  const proto::Datum stored = records_in(folder / "db").at("00000000_a.pgm");
  EXPECT_TRUE(stored.encoded);
  EXPECT_EQ(stored.bytes.substr(0, 3), "P5\n");
}

// Plain records, then encoded ones: the reader goes on where it changes into the one that can decode.
TEST_F(ConvertImages, ReadersTakeMixedDataBases) {
  {
    LmdbWriter writer({folder / "db"});
    for (int i = 0; i < 12; ++i) {
      proto::Datum datum = testing_data::numbered_datum(i, 2);
      if (i >= 5) {
        datum.encoded = true;
        datum.bytes = "P5\n2 2\n255\n" + std::string(4, static_cast<char>(i));
      }
      writer.append(testing_data::numbered_key(i), proto::datum_bytes(datum));
    }
    writer.finish();
  }
  RecordReaderOptions options;
  options.source = folder / "db";
  options.program = POSEIDON_DATA_PROGRAM_FOR_TESTS;
  options.first = 1;
  options.take = 3;
  options.skip = 2;
  RecordReader reader(options);
  for (const int index : {1, 2, 3, 6, 7, 8, 11, 12, 13, 16, 17, 18, 21, 22, 23}) {
    const Record record = reader.next();
    EXPECT_EQ(record.index, static_cast<std::uint64_t>(index));
    const proto::Datum datum = proto::parse_datum(record.value, "x");
    EXPECT_EQ(datum.label, index % 12);
    EXPECT_EQ(datum.bytes, std::string(4, static_cast<char>(index % 12)));
  }
}

TEST_F(ConvertImages, NamesFileAndLineOfAnUnreadableImage) {
  write_file(folder / "in" / "broken.png", "\x89PNG and no more");
  write_file(folder / "list.txt", "a.pgm 1\nbroken.png 2\nnone.png 3\n");
  Outcome outcome = run("--gray " + places);
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.output.find((folder / "list.txt").string() + ":2: " + (folder / "in" / "broken.png").string() +
                                ": is no image that can be decoded"),
            std::string::npos)
      << outcome.output;
  EXPECT_FALSE(std::filesystem::exists(folder / "db"));

  outcome = run("--gray --skip-unreadable " + places);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.output.find("1 images [1, 2, 2] with 1 labels, 2 unreadable ones passed over"), std::string::npos)
      << outcome.output;
  EXPECT_NE(outcome.output.find("warning: " + (folder / "list.txt").string() + ":3: cannot read "), std::string::npos)
      << outcome.output;
  EXPECT_EQ(records_in(folder / "db").size(), 1u);
}

TEST_F(ConvertImages, ExplainsWrongInput) {
  const auto error = [&](const std::string& arguments) {
    const Outcome outcome = run(arguments);
    EXPECT_NE(outcome.code, 0) << arguments;
    EXPECT_FALSE(std::filesystem::exists(folder / "db")) << arguments;
    return outcome.output;
  };
  EXPECT_NE(error("--resize-width 3 " + places).find("belong together"), std::string::npos);
  EXPECT_NE(error("--encode-type nonsense " + places).find("cannot be written as \"nonsense\""), std::string::npos);
  EXPECT_NE(error("--check-size --encoded " + places).find("--check-size compares pixels"), std::string::npos);
  EXPECT_NE(error("--bogus " + places).find("--bogus"), std::string::npos);
  EXPECT_NE(error("/no/such/root " + places.substr(places.find(' ') + 1)).find("there is no folder /no/such/root"),
            std::string::npos);
  write_pgm(folder / "in" / "a.pgm", 3, 3);
  EXPECT_NE(error("--gray --check-size " + places)
                .find("sub folder/b 1.pgm is [1, 2, 2] and the images before are [1, 3, 3]"),
            std::string::npos);
  write_file(folder / "list.txt", "a.pgm\n");
  EXPECT_NE(error(places).find("list.txt:1: \"a.pgm\" is not a path, a blank and a label"), std::string::npos);
  write_file(folder / "list.txt", "a.pgm 1x\n");
  EXPECT_NE(error(places).find("list.txt:1: "), std::string::npos);
  write_file(folder / "list.txt", "\n\n");
  EXPECT_NE(error(places).find("lists no image"), std::string::npos);
  write_file(folder / "list.txt", std::string(600, 'x') + " 1\n");
  EXPECT_NE(error(places).find("list.txt:1: "), std::string::npos);
}

TEST_F(ConvertImages, RefusesToOverwrite) {
  EXPECT_EQ(run("--gray " + places).code, 0);
  const Outcome outcome = run("--gray " + places);
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.output.find("exists already"), std::string::npos);
  EXPECT_EQ(run("--gray --overwrite " + places).code, 0);
}

TEST_F(ConvertImages, SaysThatTheDiskIsFull) {
  // A limit on the size of files stands in for a full disk: 40 blocks of 1 KiB.
  write_pgm(folder / "in" / "a.pgm", 300, 300);
  const Outcome outcome = run("--gray " + places, "ulimit -f 40; ");
  EXPECT_EQ(outcome.code, 5) << outcome.output;
  EXPECT_NE(outcome.output.find("cannot write " + (folder / "db").string() + ": "), std::string::npos)
      << outcome.output;
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), std::filesystem::directory_iterator()), 2)
      << "something was left behind";
}

TEST_F(ConvertImages, LeavesNothingWhenInterrupted) {
  std::string list;
  for (int i = 0; i < 500'000; ++i) list += "a.pgm 1\n";
  write_file(folder / "list.txt", list);
  const pid_t process = ::fork();
  if (process == 0) {
    ::execl(POSEIDON_DATA_PROGRAM_FOR_TESTS, "poseidon-data", "convert-images", "--gray", (folder / "in").c_str(),
            (folder / "list.txt").c_str(), (folder / "db").c_str(), nullptr);
    ::_exit(99);
  }
  const auto entries = [&] {
    return std::distance(std::filesystem::directory_iterator(folder.path()), std::filesystem::directory_iterator());
  };
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (entries() < 3 && std::chrono::steady_clock::now() < deadline) ::usleep(1000);
  ASSERT_EQ(entries(), 3) << "it did not begin to write";
  ::kill(process, SIGINT);
  int status = 0;
  ::waitpid(process, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 130) << status;
  EXPECT_EQ(entries(), 2) << "something was left behind";
}

TEST(ImageList, TakesTheLabelAfterTheLastBlank) {
  const std::vector<ListedImage> images = parse_image_list("a b/c.png 12\n\n  \nx.png\t-3\r\ny z.png   4  ", "list");
  ASSERT_EQ(images.size(), 3u);
  EXPECT_EQ(images[0].path, "a b/c.png");
  EXPECT_EQ(images[0].label, 12);
  EXPECT_EQ(images[0].line, 1u);
  EXPECT_EQ(images[1].path, "x.png");
  EXPECT_EQ(images[1].label, -3);
  EXPECT_EQ(images[1].line, 4u);
  EXPECT_EQ(images[2].path, "y z.png");
  EXPECT_EQ(images[2].label, 4);
  EXPECT_EQ(error_of([] { static_cast<void>(parse_image_list("ok 1\n 5\n", "list")); }),
            "list:2: there is no path before the label");
  EXPECT_EQ(error_of([] { static_cast<void>(parse_image_list("a 99999999999\n", "list")); }).substr(0, 7), "list:1:");
}

}  // namespace
}  // namespace poseidon::caffe
