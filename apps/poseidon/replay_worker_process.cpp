#include "apps/poseidon/replay_worker_process.h"

#include <sys/resource.h>

#include <future>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/text.h"
#include "launch/sentence.h"
#include "replay/replay_worker.h"

namespace poseidon::app {
namespace {

using nlohmann::json;

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double seconds(runtime::Duration duration) { return std::chrono::duration<double>(duration).count(); }

// The replayed device and the arithmetic that it is charged for, in one piece for the lane to own.
struct Machine : runtime::Compute {
  Machine(runtime::Runtime& lane, const replay::Workload& workload, const Model& model)
      : device(lane), compute(device, lane, real, workload, model) {}
  void sum(runtime::SumJob job, runtime::ComputeDoneFn done) override { compute.sum(std::move(job), std::move(done)); }
  void product(runtime::ProductJob job, runtime::ComputeDoneFn done) override { compute.product(std::move(job), std::move(done)); }

  replay::Device device;
  runtime::SimpleCompute real;
  replay::ReplayCompute compute;
};

// Runs `start` on the lane and waits until the function that it is given has been called.
template <typename T, typename Start>
T on_lane(runtime::Runtime& lane, Start start) {
  auto answer = std::make_shared<std::promise<T>>();
  std::future<T> future = answer->get_future();
  lane.post([start, answer] { start([answer](const T& value) { answer->set_value(value); }); });
  return future.get();
}

Status replay_all(const ReplayOptions& options, const replay::Workload& workload, cluster::Worker& cluster, Machine& machine,
                  const plan::DescribedModel& model) {
  Result<replay::Scratch> scratch = replay::Scratch::allocate(cluster.session(), model.model);
  if (!scratch) return scratch.error();
  auto worker = std::make_shared<replay::ReplayWorker>(cluster.lane(), cluster.session(), machine.device, workload, model,
                                                       std::move(*scratch), options.schedule.overlap_mode());
  const cluster::Worker::Traffic before = cluster.traffic();  // links have been measured
  json begins = json::array();
  double waited = 0;
  double cpu = 0;
  bool stopped = false;
  for (int i = 0; i < options.all_iterations() && !stopped; ++i) {
    stopped = !cluster.begin(static_cast<Iteration>(i));
    if (stopped) break;
    if (i == options.warm_up) cpu = -cpu_seconds();
    if (i == options.warm_up + options.iterations) cpu += cpu_seconds();
    const auto times = on_lane<Result<replay::IterationTimes>>(cluster.lane(), [worker](auto done) { worker->run(done); });
    if (!times) return times.error();
    begins.push_back(seconds(times->begin));
    if (i >= options.warm_up && i < options.warm_up + options.iterations) waited += seconds(times->waited);
  }
  if (const std::optional<Error> error = cluster.error()) return *error;
  const auto settled = on_lane<std::optional<Error>>(cluster.lane(), [worker](auto done) { worker->settle(done); });
  if (settled) return *settled;
  // All sums have come here; when they have come everywhere, everything that is to leave this worker has left it.
  if (const Result<std::vector<std::string>> all = cluster.gather(""); !all) return all.error();
  const cluster::Worker::Traffic traffic = cluster.traffic();
  cluster.note(json{{"begins", begins},
                    {"waited_seconds", waited / options.iterations},
                    {"cpu_seconds", cpu},
                    {"stopped", stopped},
                    {"bytes_sent", traffic.bytes_sent - before.bytes_sent},
                    {"bytes_received", traffic.bytes_received - before.bytes_received},
                    {"staging_bytes_max", traffic.engine.staging_bytes_max}}
                   .dump());
  return cluster.leave();
}

Status run(const ReplayOptions& options, const cluster::JobAddress& job) {
  Result<replay::Workload> workload = read_workload(options.workload);
  if (!workload) return workload.error();
  workload->dilation = options.dilation;
  const plan::DescribedModel model = plan::model_of(workload->description, workload->batch);
  Machine* machine = nullptr;
  cluster::WorkerOptions worker{.job = job, .model = model.model};
  worker.make_compute = [&](runtime::Runtime& lane) {
    auto made = std::make_unique<Machine>(lane, *workload, model.model);
    machine = made.get();
    return made;
  };
  worker.priorities = !options.schedule.no_priorities;
  worker.lanes = options.job.lanes;
  worker.pin_lanes = options.job.pin_lanes;
  worker.staging_bytes_max = options.job.staging_bytes_max;
  Result<std::unique_ptr<cluster::Worker>> cluster = cluster::Worker::join(std::move(worker));
  if (!cluster) return cluster.error();
  return replay_all(options, *workload, **cluster, *machine, model);
}

}  // namespace

int run_replay_worker(const ReplayOptions& options, const cluster::JobAddress& job) {
  base::log::configure(base::concat("rank ", index(job.rank)), base::log::Level::kInfo);
  const Status status = run(options, job);
  if (status) return kSuccess;
  base::log::error(status.error().message);
  launch::report_error(static_cast<int>(index(job.rank)), status.error());
  return exit_code_of(status.error().code);
}

}  // namespace poseidon::app
