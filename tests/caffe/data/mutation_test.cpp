// A thousand damaged files of each kind: a value, a sentence or the death of the child that reads it, and never much
// memory or time.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <random>

#include "engines/caffe/data/hdf5_file.h"
#include "engines/caffe/data/hdf5_model.h"
#include "tests/caffe/data/data_bases.h"

namespace poseidon::caffe {
namespace {

using testing_data::TemporaryFolder;
using testing_data::write_file;
using testing_data::write_numbered;

constexpr unsigned kRounds = 1000;
constexpr unsigned kSecondsMax = 10;
// Of a process that has this test's libraries loaded, and the most that a damaged file of a few kilobytes may ask for.
constexpr long kResidentKilobytesMax = 512 * 1024;
constexpr rlim_t kAddressBytesMax = rlim_t{8} << 30;

struct Outcomes {
  int read = 0;
  int refused = 0;
  int died = 0;
};

// What `read` does in a process of its own: returns, throws ConfigError, or dies. Anything else fails the test.
void run_in_child(unsigned seed, const std::function<void()>& read, Outcomes& outcomes) {
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    const rlimit address{kAddressBytesMax, kAddressBytesMax};
    ::setrlimit(RLIMIT_AS, &address);
    ::alarm(kSecondsMax);
    try {
      read();
      ::_exit(0);
    } catch (const ConfigError& error) {
      ::_exit(*error.what() == '\0' ? 2 : 1);
    } catch (...) {
      ::_exit(2);
    }
  }
  int status = 0;
  rusage used{};
  ASSERT_EQ(::wait4(child, &status, 0, &used), child);
  EXPECT_LT(used.ru_maxrss, kResidentKilobytesMax) << "seed " << seed;
  if (WIFSIGNALED(status)) {
    ++outcomes.died;
    const int number = WTERMSIG(status);
    EXPECT_TRUE(number == SIGSEGV || number == SIGBUS || number == SIGABRT || number == SIGFPE)
        << "seed " << seed << " ended with signal " << number;
    return;
  }
  EXPECT_LT(WEXITSTATUS(status), 2) << "seed " << seed << ": neither a value nor a ConfigError";
  ++(WEXITSTATUS(status) == 0 ? outcomes.read : outcomes.refused);
}

std::string mutated(std::string bytes, std::mt19937& dice) {
  for (unsigned hit = 0; hit <= dice() % 8; ++hit) {
    const std::size_t place = dice() % bytes.size();
    switch (dice() % 5) {
      case 0:
        bytes[place] = static_cast<char>(dice());
        break;
      case 1:
        bytes[place] = static_cast<char>(bytes[place] ^ (1 << dice() % 8));
        break;
      case 2:  // a number that is all ones
        for (std::size_t i = place; i < std::min(bytes.size(), place + 8); ++i) bytes[i] = '\xFF';
        break;
      case 3:  // a part that stands elsewhere
        bytes.replace(place, 16, bytes.substr(dice() % bytes.size(), 16));
        break;
      default:
        if (dice() % 4 == 0) bytes.resize(place + 1);
    }
  }
  return bytes;
}

std::string bytes_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void read_store(const std::filesystem::path& folder) {
  const std::unique_ptr<StoreReader> reader = open_store(folder);
  for (std::uint64_t i = 0; i < 50; ++i) {
    reader->seek(i, [] {});
    static_cast<void>(proto::parse_datum(reader->value(), "record"));
  }
}

// Each round damages one of the data base's files.
Outcomes damage_store(Backend backend) {
  const TemporaryFolder folder;
  write_numbered(folder / "db", 40, 6, backend);
  std::map<std::filesystem::path, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "db")) {
    if (entry.file_size() > 0) files[entry.path()] = bytes_of(entry.path());
  }
  Outcomes outcomes;
  for (unsigned seed = 0; seed < kRounds; ++seed) {
    std::mt19937 dice(seed);
    const auto& [file, whole] = *std::next(files.begin(), dice() % files.size());
    write_file(file, mutated(whole, dice));
    run_in_child(
        seed, [&] { read_store(folder / "db"); }, outcomes);
    write_file(file, whole);
  }
  read_store(folder / "db");
  return outcomes;
}

TEST(Mutations, OfAnLmdb) {
  const Outcomes outcomes = damage_store(Backend::kLmdb);
  EXPECT_GT(outcomes.refused + outcomes.died, 100);
}

TEST(Mutations, OfALevelDb) {
  const Outcomes outcomes = damage_store(Backend::kLevelDb);
  EXPECT_GT(outcomes.refused, 300);
}

proto::Blob numbers(std::vector<std::int64_t> shape) {
  proto::Blob blob{.shape = std::move(shape), .values = {}};
  std::vector<float> values(24);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  blob.values = values;
  return blob;
}

TEST(Mutations, OfAModelInHdf5) {
  const std::string whole =
      hdf5_model_bytes({.name = "n",
                        .layers = {{.name = "conv", .type = "x", .blobs = {numbers({2, 3, 2, 2}), numbers({24})}},
                                   {.name = "block/ip", .type = "x", .blobs = {numbers({4, 6})}}}});
  Outcomes outcomes;
  for (unsigned seed = 0; seed < kRounds; ++seed) {
    std::mt19937 dice(seed);
    const std::string bytes = mutated(whole, dice);
    run_in_child(
        seed, [&] { static_cast<void>(parse_hdf5_model(bytes, "m.h5")); }, outcomes);
  }
  EXPECT_GT(outcomes.refused, 100);
}

TEST(Mutations, OfAStateInHdf5) {
  const std::string whole = hdf5_state_bytes({.iteration = 5,
                                              .model_file = "m",
                                              .current_step = 0,
                                              .history = {numbers({24}), numbers({4, 6})},
                                              .resume = proto::ResumeState{.model_sha256 = std::string(64, '0'),
                                                                           .data_positions = {{"data", 7}},
                                                                           .dtype = "float32",
                                                                           .solver_type = "SGD"}});
  Outcomes outcomes;
  for (unsigned seed = 0; seed < kRounds; ++seed) {
    std::mt19937 dice(seed);
    const std::string bytes = mutated(whole, dice);
    run_in_child(
        seed, [&] { static_cast<void>(parse_hdf5_state(bytes, "s.h5")); }, outcomes);
  }
  EXPECT_GT(outcomes.refused, 100);
}

TEST(Mutations, OfRowsInHdf5) {
  const TemporaryFolder folder;
  hdf5::RowFile file(folder / "whole.h5");  // in chunks
  for (int i = 0; i < 10; ++i) file.append("data", numbers({2, 3, 4}));
  file.finish();
  const std::string whole = bytes_of(folder / "whole.h5");
  Outcomes outcomes;
  for (unsigned seed = 0; seed < kRounds; ++seed) {
    std::mt19937 dice(seed);
    // The first chunk has 1 MiB, most of it zeros; what is at the file's beginning says where everything is.
    write_file(folder / "m.h5", mutated(whole.substr(0, 4096), dice) + whole.substr(4096));
    run_in_child(
        seed,
        [&] {
          const hdf5::Object data = hdf5::Object::open(folder / "m.h5").at("data");
          data.require_numbers();
          const std::vector<std::int64_t> shape = data.shape();
          if (shape != std::vector<std::int64_t>{20, 3, 4}) return;
          std::vector<float> row(12);
          for (std::uint64_t i = 0; i < 20; ++i) data.read_rows(i, 1, row.data());
        },
        outcomes);
  }
  EXPECT_GT(outcomes.refused, 50);
}

}  // namespace
}  // namespace poseidon::caffe
