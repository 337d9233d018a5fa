#include "engines/caffe/tools/parse_log.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <map>
#include <optional>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;

constexpr std::string_view kBlanks = " \t\r";
constexpr double kYear = 365.0 * 86400;

// --- Pieces of lines

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (std::size_t at = line.find_first_not_of(kBlanks); at != line.npos; at = line.find_first_not_of(kBlanks, at)) {
    const std::size_t end = std::min(line.find_first_of(kBlanks, at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

// What follows the first `words` in the line.
std::optional<std::string_view> after(std::string_view line, std::string_view words) {
  const std::size_t at = line.find(words);
  if (at == line.npos) return std::nullopt;
  return line.substr(at + words.size());
}

// The number at the beginning of the text; infinities and NaN are numbers too.
template <typename Number>
std::optional<Number> leading(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  Number number{};
  if (std::from_chars(text.data(), text.data() + text.size(), number).ec != std::errc{}) return std::nullopt;
  return number;
}

template <typename Number>
std::optional<Number> number_after(std::string_view line, std::string_view words) {
  const std::optional<std::string_view> rest = after(line, words);
  return rest ? leading<Number>(*rest) : std::nullopt;
}

// --- Caffe's logs

// Two digits of a text that has that many.
int two_digits(std::string_view text, std::size_t at) {
  return (text[at] - '0') * 10 + (text[at + 1] - '0');
}

// Seconds since some moment, of the beginning of a line of glog's: "I1210 13:39:22.381027 25210 solver.cpp:204] ...",
// or "I20141210 ..." of later versions. The older one does not tell the year.
std::optional<double> glog_seconds(std::string_view line, int year) {
  const std::vector<std::string_view> words = words_of(line.substr(0, 64));
  if (words.size() < 2 || words[0].empty() || std::string_view("IWEF").find(words[0][0]) == std::string_view::npos)
    return std::nullopt;
  std::string_view date = words[0].substr(1);
  const auto are_digits = [](std::string_view text) { return text.find_first_not_of("0123456789") == text.npos; };
  if ((date.size() != 4 && date.size() != 8) || !are_digits(date)) return std::nullopt;
  if (date.size() == 8) {
    year = two_digits(date, 0) * 100 + two_digits(date, 2);
    date.remove_prefix(4);
  }
  const std::string_view time = words[1];
  if (time.size() < 8 || time[2] != ':' || time[5] != ':' || !are_digits(time.substr(0, 2)) ||
      !are_digits(time.substr(3, 2))) {
    return std::nullopt;
  }
  const std::optional<double> seconds = leading<double>(time.substr(6));
  if (!seconds) return std::nullopt;
  const std::chrono::year_month_day day{std::chrono::year(year),
                                        std::chrono::month(static_cast<unsigned>(two_digits(date, 0))),
                                        std::chrono::day(static_cast<unsigned>(two_digits(date, 2)))};
  if (!day.year().ok() || !day.month().ok()) return std::nullopt;
  const auto days = std::chrono::sys_days(day).time_since_epoch().count();
  return static_cast<double>(days) * 86400 + two_digits(time, 0) * 3600 + two_digits(time, 3) * 60 + *seconds;
}

// Rows, each found by its iteration; an iteration that comes again (training began anew in the same log) begins
// another.
class Rows {
 public:
  explicit Rows(std::vector<LogRow>& rows) : rows_(rows) {}
  LogRow& at(std::uint64_t iteration, double seconds) {
    if (rows_.empty() || rows_.back().iteration != iteration) rows_.push_back({iteration, seconds, kUnknown, {}});
    return rows_.back();
  }

 private:
  std::vector<LogRow>& rows_;
};

void set_output(LogRow& row, std::string name, double value) {
  const auto same = [&](const auto& output) { return output.first == name; };
  if (const auto found = std::find_if(row.outputs.begin(), row.outputs.end(), same); found != row.outputs.end()) {
    found->second = value;
  } else {
    row.outputs.emplace_back(std::move(name), value);
  }
}

std::string output_name(std::uint64_t test_net, std::string_view name) {
  return test_net == 0 ? std::string(name) : concat("net", test_net, "_", name);
}

// The rate that was in force at each iteration.
void give_rates(std::vector<LogRow>& rows, const std::map<std::uint64_t, double>& rates) {
  if (rates.empty()) return;
  for (LogRow& row : rows) {
    const auto later = rates.upper_bound(row.iteration);
    row.rate = later == rates.begin() ? later->second : std::prev(later)->second;
  }
}

class CaffeLog {
 public:
  void read(std::string_view line) {
    if (const std::optional<int> year = number_after<int>(line, "Log file created at: ")) year_ = *year;
    const std::size_t message = line.find("] ");
    if (message == line.npos) return;
    if (const std::optional<double> now = glog_seconds(line, year_)) {
      // Where the year is not told, January comes before December.
      if (now_ && *now + years_passed_ < *now_ - kYear / 2) years_passed_ += kYear;
      now_ = *now + years_passed_;
      if (line.find("Solving", message) != line.npos && !start_) start_ = now_;
    }
    if (const auto iteration = number_after<std::uint64_t>(line, "Iteration ")) iteration_ = *iteration;
    if (!iteration_) return;
    if (const auto net = number_after<std::uint64_t>(line, "Testing net (#")) test_net_ = *net;
    if (const auto rate = number_after<double>(line, "lr = ")) rates_[*iteration_] = *rate;
    output(line, "Train net output #", train_, 0);
    output(line, "Test net output #", test_, test_net_);
  }

  TrainingLog finished() {
    give_rates(log_.train, rates_);
    give_rates(log_.test, rates_);
    return std::move(log_);
  }

 private:
  // "... output #1: loss = 0.35 (* 1 = 0.35 loss)"
  void output(std::string_view line, std::string_view words, Rows& rows, std::uint64_t net) {
    const std::optional<std::string_view> rest = after(line, words);
    if (!rest) return;
    const std::vector<std::string_view> parts = words_of(*rest);
    if (parts.size() < 4 || parts[2] != "=") return;
    const std::optional<double> value = leading<double>(parts[3]);
    if (!value) return;
    const double seconds = start_ && now_ ? *now_ - *start_ : kUnknown;
    set_output(rows.at(*iteration_, seconds), output_name(net, parts[1]), *value);
  }

  TrainingLog log_;
  Rows train_{log_.train};
  Rows test_{log_.test};
  std::map<std::uint64_t, double> rates_;
  int year_ = 2001;          // any that is no leap year, until the log tells
  double years_passed_ = 0;  // in seconds
  std::optional<double> start_;
  std::optional<double> now_;
  std::optional<std::uint64_t> iteration_;
  std::uint64_t test_net_ = 0;
};

// --- Poseidon's logs

class PoseidonLog {
 public:
  void read(std::string_view line) {
    if (line.starts_with("test at ")) return read_test(line);
    const std::vector<std::string_view> words = words_of(line);
    if (words.size() >= 5 && words[0] == "iteration" && words[1] == "loss") in_table_ = true;
    // "600 iterations, 76800 samples in 12.0 s: ..."
    if (words.size() >= 5 && words[1] == "iterations," && words[3] == "samples") {
      iterations_ = leading<std::uint64_t>(words[0]);
      samples_ = leading<double>(words[2]);
    }
    if (in_table_ && words.size() == 6 && words[5] == "%") read_row(words);
  }

  TrainingLog finished() {
    give_rates(log_.train, rates_);
    give_rates(log_.test, rates_);
    give_seconds();
    return std::move(log_);
  }

 private:
  // "       100    0.41235       0.01       2345    1.2 %"
  void read_row(const std::vector<std::string_view>& words) {
    const auto iteration = leading<std::uint64_t>(words[0]);
    const auto loss = leading<double>(words[1]);
    const auto rate = leading<double>(words[2]);
    const auto speed = leading<double>(words[3]);
    if (!iteration || !loss || !rate || !speed) return;
    rates_[*iteration] = *rate;
    log_.train.push_back({*iteration, kUnknown, *rate, {{"loss", *loss}}});
    samples_per_second_.push_back(*speed);
  }

  // "test at 100, net 1: accuracy 0.97, loss 0.09"
  void read_test(std::string_view line) {
    const auto iteration = number_after<std::uint64_t>(line, "test at ");
    const std::size_t colon = line.find(": ");
    if (!iteration || colon == line.npos) return;
    const std::uint64_t net = number_after<std::uint64_t>(line.substr(0, colon), ", net ").value_or(0);
    LogRow& row = test_.at(*iteration, kUnknown);
    const std::vector<std::string_view> words = words_of(line.substr(colon + 2));
    for (std::size_t i = 0; i + 1 < words.size(); i += 2) {
      if (const auto value = leading<double>(words[i + 1])) set_output(row, output_name(net, words[i]), *value);
    }
  }

  // A line tells the speed since the line before.
  void give_seconds() {
    if (!iterations_ || !samples_ || *iterations_ == 0) return;
    const double samples_per_iteration = *samples_ / static_cast<double>(*iterations_);
    double seconds = 0;
    std::map<std::uint64_t, double> by_iteration;
    for (std::size_t i = 0; i < log_.train.size(); ++i) {
      LogRow& row = log_.train[i];
      // The first line tells of all iterations before it; of one that goes on from a snapshot, which has a higher
      // number than there were iterations, only of itself.
      const bool first_is_resumed = row.iteration >= *iterations_;
      const std::uint64_t since = i > 0              ? row.iteration - log_.train[i - 1].iteration
                                  : first_is_resumed ? 1
                                                     : row.iteration + 1;
      seconds += static_cast<double>(since) * samples_per_iteration / samples_per_second_[i];
      row.seconds = seconds;
      by_iteration[row.iteration] = seconds;
    }
    for (LogRow& row : log_.test) {
      const auto later = by_iteration.upper_bound(row.iteration);
      row.seconds = later == by_iteration.begin() ? 0 : std::prev(later)->second;
    }
  }

  TrainingLog log_;
  Rows test_{log_.test};
  std::map<std::uint64_t, double> rates_;
  std::vector<double> samples_per_second_;  // of each row of training
  std::optional<std::uint64_t> iterations_;
  std::optional<double> samples_;
  bool in_table_ = false;
};

// Short, and the same number when it is read again.
std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  std::array<char, 32> digits{};
  const auto [end, failed] = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  return failed == std::errc{} ? std::string(digits.data(), end) : concat(value);
}

}  // namespace

TrainingLog parse_log(std::string_view text, const std::string& file_name) {
  CaffeLog of_caffe;
  PoseidonLog of_poseidon;
  while (!text.empty()) {
    const std::size_t length = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, length);
    of_caffe.read(line);
    of_poseidon.read(line);
    text.remove_prefix(std::min(length + 1, text.size()));
  }
  TrainingLog log = of_caffe.finished();
  if (log.train.empty() && log.test.empty()) log = of_poseidon.finished();
  if (!log.train.empty() || !log.test.empty()) return log;
  throw ConfigError(concat(file_name, ": has no line of training or testing, neither Caffe's nor `poseidon train`'s"));
}

std::string log_table(const std::vector<LogRow>& rows, char delimiter) {
  std::vector<std::string> names;
  for (const LogRow& row : rows) {
    for (const auto& [name, value] : row.outputs) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  std::string table = concat("NumIters", delimiter, "Seconds", delimiter, "LearningRate");
  for (const std::string& name : names) table += delimiter + name;
  table += '\n';
  for (const LogRow& row : rows) {
    table += concat(row.iteration, delimiter, number_text(row.seconds), delimiter, number_text(row.rate));
    for (const std::string& name : names) {
      table += delimiter;
      const auto same = [&](const auto& output) { return output.first == name; };
      const auto found = std::find_if(row.outputs.begin(), row.outputs.end(), same);
      if (found != row.outputs.end()) table += number_text(found->second);
    }
    table += '\n';
  }
  return table;
}

}  // namespace poseidon::caffe
