#include "apps/poseidon-data/tool.h"

#include <signal.h>

#include <atomic>
#include <cstdio>
#include <new>

#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/usage.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"
#include "engines/caffe/tools/old_flags.h"

namespace poseidon::data {
namespace {

// Thrown where Ctrl-C, SIGTERM or SIGHUP was noticed.
struct Interrupted {};

std::atomic<bool> stop_wanted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may set it");

void stop_on(int signal_number) {
  struct sigaction action {};
  action.sa_handler = [](int) { stop_wanted = true; };
  ::sigaction(signal_number, &action, nullptr);
}

}  // namespace

int run_tool(const Tool& tool, CLI::App& app, const std::vector<std::string>& arguments, const std::function<void()>& work) {
  app.name(tool.name);
  const std::vector<std::string> modern = caffe::modern_spelling(arguments, tool.switches);
  try {
    app.parse(std::vector<std::string>(modern.rbegin(), modern.rend()));  // CLI11 takes them from the back
  } catch (const CLI::ParseError& error) {
    return report(app, error);
  }
  const auto complain = [&](const char* what, int code) {
    std::fprintf(stderr, "%s: %s\n", tool.name.c_str(), what);
    return code;
  };
  // A file that grows over the user's limit is an error to report, not a reason to die.
  ::signal(SIGXFSZ, SIG_IGN);
  try {
    work();
    return kSuccess;
  } catch (const Interrupted&) {
    return complain("interrupted; nothing was written", kInterrupted);
  } catch (const caffe::ConfigError& error) {
    return complain(error.what(), kWrongInput);
  } catch (const caffe::SystemError& error) {
    return complain(error.what(), kSystem);
  } catch (const std::bad_alloc&) {
    return complain("out of memory", kSystem);
  }
}

void add_backend(CLI::App& app, caffe::Backend& backend) {
  app.add_option_function<std::string>(
         "--backend", [&backend](const std::string& name) { backend = *caffe::backend_called(name); },
         "the kind of data base: lmdb or leveldb")
      ->check(CLI::IsMember({"lmdb", "leveldb"}))
      ->default_str(std::string(caffe::flag_of(backend)));
}

void add_backend(CLI::App& app, std::optional<caffe::Backend>& backend) {
  app.add_option_function<std::string>(
         "--backend", [&backend](const std::string& name) { backend = caffe::backend_called(name); },
         "the kind of data base that it must be: lmdb or leveldb; left out: whichever it is")
      ->check(CLI::IsMember({"lmdb", "leveldb"}));
}

void add_overwrite(CLI::App& app, bool& overwrite) {
  app.add_flag("--overwrite", overwrite, "replace a data base of this name");
}

ProgressLine::ProgressLine(std::string things) : things_(std::move(things)) {
  stop_on(SIGINT);
  stop_on(SIGTERM);
  // A terminal that is closed; under nohup that is ignored, and stays so.
  struct sigaction hangup {};
  ::sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) stop_on(SIGHUP);
}

void ProgressLine::show(caffe::Progress progress) {
  if (stop_wanted) throw Interrupted{};
  const Clock::time_point now = Clock::now();
  if (now - shown_ < std::chrono::seconds(2)) return;
  shown_ = now;
  const double rate = static_cast<double>(progress.done) / seconds();
  if (progress.total == 0) {
    std::fprintf(stderr, "%zu %s, %.0f %s/s\n", progress.done, things_.c_str(), rate, things_.c_str());
    return;
  }
  std::fprintf(stderr, "%zu of %zu %s, %.0f %s/s, %.0f s left\n", progress.done, progress.total, things_.c_str(), rate,
               things_.c_str(), static_cast<double>(progress.total - progress.done) / rate);
}

std::string ProgressLine::time() const { return base::readable_seconds(seconds()); }

}  // namespace poseidon::data
