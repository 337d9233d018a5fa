// `poseidon replay`: as a launcher it starts the replaying workers and collects what they measure; started by a launcher it is
// one of them.
#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>

#include "apps/poseidon/command.h"
#include "apps/poseidon/job_files.h"
#include "apps/poseidon/replay_options.h"
#include "apps/poseidon/replay_worker_process.h"
#include "base/file.h"
#include "base/text.h"
#include "launch/local_job.h"

namespace poseidon::app {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

int complain(const Error& error) {
  std::fprintf(stderr, "poseidon replay: %s\n", error.message.c_str());
  return exit_code_of(error.code);
}

std::vector<std::string> words_of(const std::string& text) {
  std::stringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

class ReplayLauncher {
 public:
  ReplayLauncher(const ReplayOptions& options, const std::vector<std::string>& arguments) : options_(options), arguments_(arguments) {}

  int run() {
    Result<replay::Workload> workload = read_workload(options_.workload);
    if (!workload) return complain(workload.error());
    workload->dilation = options_.dilation;
    if (const Status status = check_writable(options_.report, "--report"); !status) return complain(status.error());
    Result<Prospect> best =
        prospect(*workload, options_.workload, options_.job.workers, options_.job.serving.serving,
                 {.bytes_per_second = options_.line_bytes_per_second * kPayloadShare}, options_.hosts);
    if (!best) return complain(best.error());
    prospect_ = std::move(*best);
    alone_seconds_ = workload->iteration_seconds();
    Result<std::filesystem::path> folder = make_run_folder(options_.run_folder, workload->description.name);
    if (!folder) return complain(folder.error());
    Result<launch::LocalJobOptions> prepared = options_.job.local_job("replay", arguments_, *folder);
    if (!prepared) return complain(prepared.error());
    launch::LocalJobOptions job = std::move(*prepared);
    job.start = words_of(options_.start);
    job.host = options_.listen;
    job.coordinator.plan_json = plan::to_json(prospect_.plan);
    job.coordinator.plan_name = "--scheme " + options_.workload.scheme;
    job.coordinator.link_bytes_per_second = options_.line_bytes_per_second * kPayloadShare;
    job.coordinator.dilation = options_.dilation;
    // Networks of containers take a moment to come up, and slow links to say hello on.
    std::printf("%s: %d workers%s, batches of %lld, %.4g s an iteration alone%s; logs in %s\n", workload->description.name.c_str(),
                options_.job.workers, job.servers > 0 ? base::concat(" and ", job.servers, " dedicated servers").c_str() : "",
                static_cast<long long>(workload->batch), alone_seconds_,
                options_.dilation > 1 ? base::concat(", dilated ", options_.dilation, " times").c_str() : "", folder->c_str());
    std::fflush(stdout);
    const Status planned = base::write_file_atomically(*folder / "plan.json", plan::to_json(prospect_.plan));
    if (!planned) return complain(planned.error());
    return finish(launch::run_local_job(job, listener(), [this](std::function<void(const Error&)> abort) { abort_ = std::move(abort); }));
  }

 private:
  cluster::CoordinatorListener listener() {
    return {.on_wait = [](const std::string& text) { std::fprintf(stderr, "poseidon replay: %s\n", text.c_str()); },
            .on_note = [this](Rank from, const std::string& body) {
              json note = json::parse(body, nullptr, false);
              if (note.is_discarded()) return abort_({ErrorCode::kCorruptFrame, base::concat("a note of rank ", index(from), " cannot be read")});
              notes_[from] = std::move(note);
            }};
  }

  // From one forward pass's beginning to the next one's, the mean of the workers.
  std::vector<double> iteration_seconds() const {
    std::vector<double> sums(static_cast<std::size_t>(options_.iterations), 0);
    for (const auto& [rank, note] : notes_) {
      const json& begins = note.at("begins");
      for (std::size_t i = 0; i < sums.size(); ++i) {
        const std::size_t at = i + static_cast<std::size_t>(options_.warm_up);
        sums[i] += begins.at(at + 1).get<double>() - begins.at(at).get<double>();
      }
    }
    for (double& sum : sums) sum /= static_cast<double>(notes_.size());
    return sums;
  }

  ordered_json report(const std::vector<double>& seconds, double median, std::span<const double> server_cpu_seconds) const {
    ordered_json j = {{"model", options_.workload.model},
                      {"workers", options_.job.workers},
                      {"servers", options_.job.serving.serving.servers},
                      {"batch", options_.workload.batch},
                      {"samples_per_second", options_.workload.samples_per_second},
                      {"lanes", options_.job.lanes},
                      {"dilation", options_.dilation},
                      {"overlap", options_.schedule.overlap},
                      {"priorities", !options_.schedule.no_priorities},
                      {"tls", options_.job.tls},
                      {"hosts", plan::nodes_of(prospect_.plan)},
                      {"line_bytes_per_second", options_.line_bytes_per_second},
                      {"alone_seconds", alone_seconds_},
                      {"bound_seconds", prospect_.bound_seconds},
                      {"iteration_seconds", seconds},
                      {"speedup", options_.job.workers * alone_seconds_ / median},
                      {"fraction_of_bound", prospect_.bound_seconds / median}};
    // By the system's monotonic clock, for those who watch the machine meanwhile.
    const auto begins = [&](int iteration, auto least_or_most) {
      std::vector<double> at;
      for (const auto& [rank, note] : notes_) at.push_back(note.at("begins").at(static_cast<std::size_t>(iteration)));
      return *least_or_most(at.begin(), at.end());
    };
    j["measured_begin"] = begins(options_.warm_up, [](auto first, auto last) { return std::min_element(first, last); });
    j["measured_end"] = begins(options_.all_iterations() - 1, [](auto first, auto last) { return std::max_element(first, last); });
    double waited = 0;
    for (const auto& [rank, note] : notes_) waited += note.at("waited_seconds").get<double>() / static_cast<double>(notes_.size());
    j["waited_seconds"] = waited;
    for (const char* const field : {"bytes_sent", "bytes_received", "cpu_seconds", "staging_bytes_max"}) {
      j[field] = ordered_json::array();
      for (const auto& [rank, note] : notes_) j[field].push_back(ordered_json(note.at(field)));
    }
    // Of all iterations: servers do not know which are measured.
    j["server_cpu_seconds"] = ordered_json::array();
    for (const double cpu_seconds : server_cpu_seconds) j["server_cpu_seconds"].push_back(cpu_seconds);
    if (prospect_.plan.wire) j["wire"] = to_string(*prospect_.plan.wire);
    j["layers"] = ordered_json::array();
    for (const plan::LayerPlan& layer : prospect_.plan.layers) {
      j["layers"].push_back({{"name", layer.name}, {"scheme", to_string(layer.scheme)}});
    }
    return j;
  }

  int finish(const launch::JobOutcome& outcome) {
    if (outcome.error) return outcome.interrupted ? kSignalled + *outcome.interrupted : complain(*outcome.error);
    if (outcome.interrupted) return kSignalled + *outcome.interrupted;
    std::vector<double> seconds = iteration_seconds();
    std::vector<double> sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    const double median = sorted[sorted.size() / 2];
    std::printf("iteration: median %.4g s, least %.4g, most %.4g; speed-up %.2f; %.1f %% of the bound (%.4g s)\n", median, sorted.front(),
                sorted.back(), options_.job.workers * alone_seconds_ / median, 100 * prospect_.bound_seconds / median, prospect_.bound_seconds);
    if (!options_.report) return kSuccess;
    const auto servers = std::span(outcome.cpu_seconds).subspan(static_cast<std::size_t>(options_.job.workers));
    const Status written = base::write_file_atomically(*options_.report, report(seconds, median, servers).dump(2) + "\n");
    return written ? kSuccess : complain(written.error());
  }

  const ReplayOptions& options_;
  const std::vector<std::string>& arguments_;
  Prospect prospect_;
  double alone_seconds_ = 0;
  std::map<Rank, json> notes_;
  std::function<void(const Error&)> abort_;
};

}  // namespace

int replay_command(const std::vector<std::string>& arguments) {
  const ParsedReplayOptions parsed = parse_replay_options(arguments);
  if (parsed.exit_code) return *parsed.exit_code;
  const Result<std::optional<cluster::JobAddress>> job = parsed.options.job.own_job();
  if (!job) return complain(job.error());
  if (*job) return run_replay_worker(parsed.options, **job);
  return ReplayLauncher(parsed.options, arguments).run();
}

}  // namespace poseidon::app
