#include "engines/caffe/data/record_reader.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <thread>

#include "engines/caffe/data/record_protocol.h"
#include "tests/caffe/data/data_bases.h"

namespace poseidon::caffe {
namespace {

using testing_data::error_of;
using testing_data::numbered_datum;
using testing_data::numbered_key;
using testing_data::TemporaryFolder;
using testing_data::write_file;
using testing_data::write_numbered;
using namespace std::chrono_literals;

RecordReaderOptions options_for(const std::filesystem::path& database) {
  RecordReaderOptions options;
  options.source = database;
  options.program = POSEIDON_DATA_PROGRAM_FOR_TESTS;
  return options;
}

// A program of a few lines of shell that stands in for poseidon-data.
std::filesystem::path script(const TemporaryFolder& folder, const std::string& body) {
  const std::filesystem::path file = folder / "script";
  write_file(file, "#!/bin/sh\n" + body + "\n");
  ::chmod(file.c_str(), 0755);
  return file;
}

bool has_children() {
  return ::waitpid(-1, nullptr, WNOHANG) != -1;
}

TEST(RecordReader, YieldsEveryRecordInOrderAndBeginsAnew) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 5, 3);
  RecordReader reader(options_for(folder / "db"));
  EXPECT_EQ(reader.size(), 5u);
  for (int i = 0; i < 12; ++i) {
    const Record record = reader.next();
    EXPECT_EQ(record.index, static_cast<std::uint64_t>(i));
    EXPECT_EQ(record.key, numbered_key(i % 5));
    const proto::Datum datum = proto::parse_datum(record.value, "x");
    EXPECT_EQ(datum.label, i % 5);
    EXPECT_EQ(datum.bytes, numbered_datum(i % 5, 3).bytes);
  }
}

TEST(RecordReader, TakesItsPartOfEachGlobalBatch) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 7, 1);
  // Worker 1 of 3 with a batch of 2: global batches are [0, 6), [6, 12), ...; its parts [2, 4), [8, 10), [14, 16), [20,
  // 22).
  RecordReaderOptions options = options_for(folder / "db");
  options.first = 2;
  options.take = 2;
  options.skip = 4;
  RecordReader reader(options);
  std::vector<int> labels;
  std::vector<std::uint64_t> global;
  for (int i = 0; i < 8; ++i) {
    const Record record = reader.next();
    global.push_back(record.index);
    labels.push_back(proto::parse_datum(record.value, "x").label);
  }
  EXPECT_EQ(global, (std::vector<std::uint64_t>{2, 3, 8, 9, 14, 15, 20, 21}));
  EXPECT_EQ(labels, (std::vector<int>{2, 3, 1, 2, 0, 1, 6, 0}));  // modulo 7
}

TEST(RecordReader, ReadsALevelDbWithoutKnowingItsSize) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 7, 1, Backend::kLevelDb);
  RecordReaderOptions options = options_for(folder / "db");
  options.first = 1'000'000'000'000;  // modulo 7: 1
  options.take = 2;
  options.skip = 5'000'000;  // modulo 7: 5
  RecordReader reader(options);
  EXPECT_EQ(reader.size(), std::nullopt);
  for (const int place : {1, 2, 1, 2, 1}) EXPECT_EQ(reader.next().key, numbered_key(place));
}

TEST(RecordReader, SaysThatADataBaseIsOfAnotherKind) {
  const TemporaryFolder folder;
  write_numbered(folder / "lmdb", 2, 1);
  write_numbered(folder / "leveldb", 2, 1, Backend::kLevelDb);
  const auto opening = [&](const std::string& name, Backend backend) {
    RecordReaderOptions options = options_for(folder / name);
    options.backend = backend;
    return error_of([&] { RecordReader reader(options); });
  };
  EXPECT_EQ(opening("lmdb", Backend::kLmdb), "(no error)");
  EXPECT_EQ(opening("leveldb", Backend::kLevelDb), "(no error)");
  EXPECT_EQ(opening("lmdb", Backend::kLevelDb),
            (folder / "lmdb").string() +
                " is an LMDB and was to be read as a LevelDB; write backend: LMDB in data_param (where none is written "
                "it is LEVELDB), or --backend lmdb");
  EXPECT_NE(
      opening("leveldb", Backend::kLmdb).find("is a LevelDB and was to be read as an LMDB; write backend: LEVELDB"),
      std::string::npos);
}

TEST(RecordReader, WaitsForAChildThatShowsLife) {
  const TemporaryFolder folder;
  RecordReaderOptions options = options_for(folder / "db");
  // A hello, three signs of life 0.3 s apart, and an error.
  const std::string none(24 - 4, '\0');
  write_file(folder / "hello", std::string("\1\0\0\0\x0F\0\0\0", 8) + std::string(16, '\0') + "poseidon-data 2");
  write_file(folder / "busy", std::string("\4\0\0\0", 4) + none);
  write_file(folder / "error",
             std::string("\3\0\0\0", 4) + std::string(12, '\0') + std::string("\3\0\0\0\0\0\0\0", 8) + "end");
  const std::string at = folder.path().string() + "/";
  options.program = script(folder, "cat " + at + "hello; for i in 1 2 3; do sleep 0.3; cat " + at +
                                       "busy; done; sleep 0.3; cat " + at + "error");
  options.wait_max = 900ms;
  RecordReader reader(options);
  EXPECT_EQ(error_of([&] { static_cast<void>(reader.next()); }), "end");
}

TEST(RecordReader, StartsFarBeyondTheEndOfTheDataBase) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 7, 1);
  RecordReaderOptions options = options_for(folder / "db");
  options.first = 1'000'000'000'000;  // modulo 7: 1
  options.take = 1;
  options.skip = 7'000'000;  // a whole number of passes, and one on
  RecordReader reader(options);
  EXPECT_EQ(reader.next().key, numbered_key(1));
  EXPECT_EQ(reader.next().key, numbered_key(2));
}

TEST(RecordReader, ShowsTheNextRecordWithoutTakingIt) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 3, 1);
  RecordReader reader(options_for(folder / "db"));
  EXPECT_EQ(reader.peek().index, 0u);
  EXPECT_EQ(reader.peek().key, numbered_key(0));
  EXPECT_EQ(reader.next().index, 0u);
  EXPECT_EQ(reader.next().index, 1u);
}

TEST(RecordReader, CarriesRecordsLargerThanItsBuffers) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 3, 2000);  // 4 MB each
  RecordReader reader(options_for(folder / "db"));
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(proto::parse_datum(reader.next().value, "x").bytes, numbered_datum(i % 3, 2000).bytes);
  }
}

TEST(RecordReader, EndsAndCollectsItsChild) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 3, 100);
  int process = 0;
  {
    RecordReader reader(options_for(folder / "db"));
    static_cast<void>(reader.next());
    process = reader.process();
    EXPECT_EQ(::kill(process, 0), 0);
  }
  EXPECT_EQ(::kill(process, 0), -1);
  EXPECT_FALSE(has_children());
}

TEST(RecordReader, CollectsItsChildAfterAnErrorToo) {
  const TemporaryFolder folder;
  EXPECT_NE(error_of([&] { RecordReader reader(options_for(folder / "none")); }).find("there is no data base"),
            std::string::npos);
  EXPECT_FALSE(has_children());
}

TEST(RecordReader, SaysWhatIsWrongWithTheDataBase) {
  const TemporaryFolder folder;
  const auto opening = [&](const std::string& name) {
    return error_of([&] { RecordReader reader(options_for(folder / name)); });
  };
  write_file(folder / "file", "x");
  EXPECT_NE(opening("file").find("is a file; a data base is a folder"), std::string::npos);
  std::filesystem::create_directory(folder / "folder");
  EXPECT_NE(opening("folder").find("is no data base: it has neither a file data.mdb"), std::string::npos);
  {
    LmdbWriter writer({folder / "empty"});
    writer.finish();
  }
  EXPECT_NE(opening("empty").find("without a single record"), std::string::npos);
}

TEST(RecordReader, SaysThatRecordsAreNoImages) {
  const TemporaryFolder folder;
  {
    LmdbWriter writer({folder / "words"});
    writer.append("a\x01", "some words");
    writer.finish();
  }
  RecordReader reader(options_for(folder / "words"));
  const std::string error = error_of([&] { static_cast<void>(reader.next()); });
  EXPECT_EQ(error.substr(0, (folder / "words: record 0 (key a\\x01): is ").string().size()),
            (folder / "words: record 0 (key a\\x01): is ").string())
      << error;
  EXPECT_EQ(error_of([&] { static_cast<void>(reader.next()); }), error);  // and says so again
}

TEST(RecordReader, NamesTheRecordThatCannotBeDecoded) {
  const TemporaryFolder folder;
  {
    LmdbWriter writer({folder / "db"});
    writer.append("0", proto::datum_bytes(numbered_datum(0, 1)));
    proto::Datum broken;
    broken.encoded = true;
    broken.bytes = "this is no JPEG";
    writer.append("1", proto::datum_bytes(broken));
    writer.finish();
  }
  RecordReader reader(options_for(folder / "db"));
  static_cast<void>(reader.next());
  EXPECT_EQ(error_of([&] { static_cast<void>(reader.next()); }),
            (folder / "db").string() + ": record 1 (key 1): is no image that can be decoded (15 bytes)");
}

TEST(RecordReader, ReportsADeathWithItsRecord) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 300, 200);  // 40 kB each: a pipe holds 26 of them at most
  for (const auto& [number, words] : {std::pair{SIGBUS, "is damaged near record "},
                                      {SIGSEGV, "is damaged near record "},
                                      {SIGKILL, "was ended by SIGKILL near record "}}) {
    RecordReader reader(options_for(folder / "db"));
    for (int i = 0; i < 10; ++i) static_cast<void>(reader.next());
    ::kill(reader.process(), number);
    std::uint64_t got = 10;
    const std::string error = error_of([&] {
      for (;; ++got) static_cast<void>(reader.next());
    });
    EXPECT_LT(got, 60u);
    EXPECT_NE(error.find(words + std::to_string(got) + " (the last one read was " + std::to_string(got - 1) + ", key " +
                         numbered_key(static_cast<int>(got) - 1)),
              std::string::npos)
        << error;
  }
  EXPECT_FALSE(has_children());
}

TEST(RecordReader, BlamesTheDataBaseForADeathOfItsOwnOnly) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 300, 200);
  const auto read_on_after = [&](int signal) {
    RecordReader reader(options_for(folder / "db"));
    ::kill(reader.process(), signal);
    for (;;) static_cast<void>(reader.next());
  };
  EXPECT_THROW(read_on_after(SIGSEGV), ConfigError);
  EXPECT_THROW(read_on_after(SIGKILL), SystemError);
}

TEST(RecordReader, GivesUpOnAChildThatIsSilent) {
  const TemporaryFolder folder;
  RecordReaderOptions options = options_for(folder / "db");
  options.program = script(folder, "exec sleep 100");
  options.wait_max = 200ms;
  const auto before = std::chrono::steady_clock::now();
  const std::string error = error_of([&] { RecordReader reader(options); });
  EXPECT_LT(std::chrono::steady_clock::now() - before, 5s);
  EXPECT_NE(error.find("no record came from " + (folder / "db").string() + " for 200.0 ms, at its beginning"),
            std::string::npos)
      << error;
  EXPECT_FALSE(has_children());
}

TEST(RecordReader, RefusesAChildThatSpeaksAnotherLanguage) {
  const TemporaryFolder folder;
  RecordReaderOptions options = options_for(folder / "db");
  options.program = script(folder, "head -c 100000 /dev/zero");
  EXPECT_NE(error_of([&] { RecordReader reader(options); }).find("sent nonsense"), std::string::npos);
  options.program = script(folder, "exit 7");
  EXPECT_NE(error_of([&] { RecordReader reader(options); }).find("with exit code 7"), std::string::npos);
  options.program = folder / "none";
  EXPECT_NE(error_of([&] { RecordReader reader(options); }).find("cannot start"), std::string::npos);
  EXPECT_FALSE(has_children());
}

TEST(RecordReader, SurvivesSignalsThatAreMeantForTheTrainer) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 10, 300);
  RecordReader reader(options_for(folder / "db"));
  static_cast<void>(reader.next());
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::kill(reader.process(), number);
  for (int i = 0; i < 30; ++i) static_cast<void>(reader.next());
}

TEST(RecordReader, LeavesNoDescriptorToItsChild) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 10, 300);
  const int leaked = ::open("/dev/null", O_RDONLY);  // without close-on-exec
  RecordReader first(options_for(folder / "db"));
  RecordReader second(options_for(folder / "db"));
  static_cast<void>(second.next());
  std::vector<std::string> open;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(second.process()) + "/fd")) {
    std::error_code gone;
    open.push_back(std::filesystem::read_symlink(entry.path(), gone).filename().string());
  }
  std::sort(open.begin(), open.end());
  // Its standard streams (input from /dev/null), and the data base.
  EXPECT_EQ(open.size(), 4u) << testing::PrintToString(open);
  EXPECT_EQ(std::count(open.begin(), open.end(), "null"), 1) << testing::PrintToString(open);
  EXPECT_EQ(std::count(open.begin(), open.end(), "data.mdb"), 1) << testing::PrintToString(open);
  ::close(leaked);
}

TEST(RecordReader, OutlivesTheThreadThatStartedIt) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 10, 300);
  std::unique_ptr<RecordReader> reader;
  std::thread([&] { reader = std::make_unique<RecordReader>(options_for(folder / "db")); }).join();
  for (int i = 0; i < 30; ++i) static_cast<void>(reader->next());
}

TEST(RecordReader, LeavesNoChildBehindWhenTheTrainerIsKilled) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 10, 300);
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t trainer = ::fork();
  if (trainer == 0) {
    RecordReader reader(options_for(folder / "db"));
    const int child = reader.process();
    static_cast<void>(!::write(ends[1], &child, sizeof child));
    ::pause();
    ::_exit(0);
  }
  int child = 0;
  ASSERT_EQ(::read(ends[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  ::kill(trainer, SIGKILL);
  ::waitpid(trainer, nullptr, 0);
  // It is somebody else's child now, so all that can be done is look. A state of Z is a corpse nobody has collected.
  const auto is_alive = [&] {
    std::ifstream status("/proc/" + std::to_string(child) + "/stat");
    std::string pid, name, state;
    return static_cast<bool>(status >> pid >> name >> state) && state != "Z";
  };
  const auto deadline = std::chrono::steady_clock::now() + 5s;
  while (is_alive() && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(5ms);
  EXPECT_FALSE(is_alive());
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(DataProgram, IsTakenFromTheEnvironment) {
  ::setenv("POSEIDON_DATA_PROGRAM", "/bin/sh", 1);
  EXPECT_EQ(data_program(), "/bin/sh");
  ::setenv("POSEIDON_DATA_PROGRAM", "/no/such/program", 1);
  EXPECT_EQ(error_of([] { static_cast<void>(data_program()); }),
            "POSEIDON_DATA_PROGRAM=/no/such/program is not a program");
  ::unsetenv("POSEIDON_DATA_PROGRAM");
}

// --- Damage for real
// ------------------------------------------------------------------------------------------------------

// Reads `records`, and returns the error or "(no error)". Must not take long, whatever is in the file.
std::string read_all(const std::filesystem::path& database, int records) {
  RecordReaderOptions options = options_for(database);
  options.wait_max = 10s;
  return error_of([&] {
    RecordReader reader(options);
    for (int i = 0; i < records; ++i) static_cast<void>(proto::parse_datum(reader.next().value, "in the trainer"));
  });
}

TEST(DamagedDataBase, CutShortWhileItIsReadIsReported) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 300, 200);
  RecordReader reader(options_for(folder / "db"));
  static_cast<void>(reader.next());
  std::filesystem::resize_file(folder / "db" / "data.mdb", 100'000);  // the reader has it mapped: SIGBUS
  const std::string error = error_of([&] {
    for (int i = 0; i < 1000; ++i) static_cast<void>(reader.next());
  });
  EXPECT_NE(error.find((folder / "db").string() + " is damaged near record "), std::string::npos) << error;
  EXPECT_NE(error.find("its reader died of SIGBUS; create the data base again"), std::string::npos) << error;
}

TEST(DamagedDataBase, CutShortBeforeItIsReadIsReported) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 300, 40);
  const std::filesystem::path file = folder / "db" / "data.mdb";
  const auto size = std::filesystem::file_size(file);
  std::mt19937 dice(11);
  for (int round = 0; round < 10; ++round) {
    std::filesystem::copy_file(file, folder / "keep", std::filesystem::copy_options::overwrite_existing);
    std::filesystem::resize_file(file, dice() % size);
    EXPECT_NE(read_all(folder / "db", 300), "(no error)") << "round " << round;
    std::filesystem::rename(folder / "keep", file);
  }
}

// Pages overwritten by noise: whatever LMDB makes of it (an error, an assertion, SIGSEGV, SIGBUS, a walk in circles),
// the trainer gets a sentence. Values of one page hold no structure, so noise may also hit a pixel and stay unnoticed
// there; here records are small, pages are full of structure, and a noisy page never passes.
TEST(DamagedDataBase, OverwrittenPagesAreReported) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 2000, 4);
  const std::filesystem::path file = folder / "db" / "data.mdb";
  const auto pages = std::filesystem::file_size(file) / 4096;
  ASSERT_GT(pages, 20u);
  int deaths = 0;
  for (unsigned seed = 1; seed <= 30; ++seed) {
    std::filesystem::copy_file(file, folder / "keep", std::filesystem::copy_options::overwrite_existing);
    std::mt19937 dice(seed);
    {
      std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
      for (int hit = 0; hit < 3; ++hit) {
        stream.seekp(static_cast<std::streamoff>((2 + dice() % (pages - 2)) * 4096));
        for (int word = 0; word < 1024; ++word) {
          const unsigned noise = dice();
          stream.write(reinterpret_cast<const char*>(&noise), 4);
        }
      }
    }
    const std::string error = read_all(folder / "db", 2000);
    // Free pages are nobody's: damage there does no harm.
    if (error.find("died of SIG") != std::string::npos) ++deaths;
    if (error != "(no error)") {
      EXPECT_NE(error.find((folder / "db").string()), std::string::npos) << error;
    }
    EXPECT_EQ(error.find("no record came"), std::string::npos) << "seed " << seed << ": " << error;
    std::filesystem::rename(folder / "keep", file);
  }
  EXPECT_GT(deaths, 0);  // or this test would not test what it is for
  EXPECT_EQ(read_all(folder / "db", 2000), "(no error)");
  EXPECT_FALSE(has_children());
}

// Single bits and bytes anywhere, the first two pages (which say where everything is) included.
TEST(DamagedDataBase, FlippedBytesNeverHangOrCrashTheTrainer) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 500, 4);
  const std::filesystem::path file = folder / "db" / "data.mdb";
  const auto size = std::filesystem::file_size(file);
  int errors = 0;
  for (unsigned seed = 1; seed <= 30; ++seed) {
    std::filesystem::copy_file(file, folder / "keep", std::filesystem::copy_options::overwrite_existing);
    std::mt19937 dice(seed);
    {
      std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
      for (int hit = 0; hit < 40; ++hit) {
        stream.seekp(static_cast<std::streamoff>(hit < 10 ? dice() % 8192 : dice() % size));
        stream.put(static_cast<char>(dice()));
      }
    }
    const std::string error = read_all(folder / "db", 500);
    errors += error != "(no error)" ? 1 : 0;
    EXPECT_EQ(error.find("no record came"), std::string::npos) << "seed " << seed << ": " << error;
    std::filesystem::rename(folder / "keep", file);
  }
  EXPECT_GT(errors, 15);
}

// --- Frames
// -----------------------------------------------------------------------------------------------------------------

TEST(RecordProtocol, HasTheBytesOfItsTable) {
  const auto bytes = encode_frame_header({FrameKind::kRecord, 8, 0x0102030405060708, 784});
  const std::string expected(
      "\x02\x00\x00\x00\x08\x00\x00\x00\x08\x07\x06\x05\x04\x03\x02\x01\x10\x03\x00\x00\x00\x00\x00\x00", 24);
  EXPECT_EQ(std::string(bytes.data(), bytes.size()), expected);  // on a little-endian machine
  const Result<FrameHeader> header = decode_frame_header(expected);
  ASSERT_TRUE(header.ok());
  EXPECT_EQ(header->kind, FrameKind::kRecord);
  EXPECT_EQ(header->key_bytes, 8u);
  EXPECT_EQ(header->index, 0x0102030405060708u);
  EXPECT_EQ(header->value_bytes, 784u);
}

TEST(RecordProtocol, BoundsLengthsBeforeAnythingIsAllocated) {
  const auto refused = [](FrameHeader header) {
    const auto bytes = encode_frame_header(header);
    return !decode_frame_header({bytes.data(), bytes.size()}).ok();
  };
  EXPECT_FALSE(refused({FrameKind::kRecord, 4096, 0, std::uint64_t{1} << 30}));
  EXPECT_TRUE(refused({FrameKind::kRecord, 4097, 0, 0}));
  EXPECT_TRUE(refused({FrameKind::kRecord, 1, 0, (std::uint64_t{1} << 30) + 1}));
  EXPECT_TRUE(refused({static_cast<FrameKind>(0), 0, 0, 0}));
  EXPECT_TRUE(refused({static_cast<FrameKind>(5), 0, 0, 0}));
  EXPECT_FALSE(decode_frame_header("short").ok());
}

}  // namespace
}  // namespace poseidon::caffe
