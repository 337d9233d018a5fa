#include "support/sim_training.h"

#include <algorithm>

#include "session/engine_session.h"
#include "session/profile_window.h"
#include "session/wire_engine.h"

namespace poseidon::test {

using namespace std::chrono_literals;

namespace {

Model without_factors(Model model) {
  for (LayerSpec& layer : model.layers) layer.factor_rows = 0;
  return model;
}

}  // namespace

// One worker.
struct SimTraining::Crew {
  Crew(SimTraining& job, int the_rank)
      : rank(the_rank),
        options(job.options_),
        node(job.world_.at(job.member(the_rank))),
        compute(node, {.sum_bytes_per_second = 5e9, .flops_per_second = options.flops_per_second}),
        values(initial_values(options.script, static_cast<std::size_t>(the_rank))),
        model(options.renew_at ? without_factors(options.script.model) : options.script.model),
        engine(node, Rank{the_rank}, options.script.plan.workers, model),
        worker(options.script, static_cast<std::size_t>(the_rank), node, engine, values, options.world.seed * 1000003 + static_cast<std::uint64_t>(the_rank)),
        membership(node, node, compute,
                   {.self = {job.member(the_rank), Rank{the_rank}, "node" + std::to_string(the_rank), 100 + the_rank, {}},
                    .workers = options.script.plan.workers,
                    .servers = options.servers,
                    .coordinator = {},
                    .model = model,
                    .first = options.script.first,
                    .replans = options.replans,
                    .provisional = options.renew_at.has_value(),
                    .heartbeat = options.coordinator.heartbeat},
                   {.on_plan = [this](const cluster::OpenEpoch& epoch, const cluster::UsePlan& use) { install(epoch, use); },
                    .on_start = [this] { if (rank == 0) engine.broadcast(views_of(values), [this] { values_in(); }); },
                    .on_settle = [this] { worker.settle([this] { membership.settled(); }); },
                    .on_gathered = nullptr,
                    .on_goodbye = [this] { goodbye = true; },
                    .on_fail =
                        [this](const Error& why) {
                          failed = why;
                          engine.fail(why);
                        }}) {
    // Behind the submissions of the last iteration, as a training thread's call comes.
    worker.set_gate([this](Iteration iteration, std::function<void(bool)> then) {
      node.post([this, iteration, then = std::move(then)]() mutable { begin(iteration, std::move(then)); });
    });
  }

  void install(const cluster::OpenEpoch& epoch, const cluster::UsePlan& use) {
    const bool is_first = std::exchange(is_new, false);
    engine.retire();
    if (is_first) engine.train(model);
    session::EngineOptions made{.self = Rank{rank}, .members = {}, .model = model,
                                .plan = plan::parse_plan(use.plan, model, options.script.plan.workers).value(),
                                .window_bytes = use.window_bytes};
    for (const cluster::MemberInfo& info : epoch.members) made.members.push_back(info.member);
    made.model = plan::model_on_wire(made.model, options.script.plan.workers, made.plan.wire);
    engine.install(session::WireEngine::around(node, session::EngineSession::create(node, node, compute, std::move(made)).value(),
                                               model, true));
    watching = use.watch;
    engine.watch(watching);
    window.clear();
    if (is_first && rank != 0) engine.broadcast(views_of(values), [this] { values_in(); });
    membership.ready();
  }

  void values_in() {
    if (after_renewal) return std::exchange(after_renewal, nullptr)();
    worker.start([this](const std::optional<Error>& error) {
      if (!error) membership.leave();
    });
  }

  void begin(Iteration iteration, std::function<void(bool)> then) {
    const double waited = std::chrono::duration<double>(worker.waited()).count();
    if (watching && begun) observe(waited);
    if (iteration == options.renew_at && !options.never_renews.contains(rank) && !std::exchange(renewed, true)) {
      return worker.settle([this, iteration, then = std::move(then)]() mutable {
        after_renewal = [this, iteration, then = std::move(then)]() mutable { begin(iteration, std::move(then)); };
        const auto otherwise = options.renewed_otherwise.find(rank);
        model = otherwise == options.renewed_otherwise.end() ? options.script.model : otherwise->second;
        is_new = true;
        begun.reset();
        membership.renew({model, iteration, values_told()});
      });
    }
    membership.begin(iteration, [this, iteration, waited, then = std::move(then)](bool go) {
      begun = {{iteration, node.now(), waited}};
      if (go) plans.push_back(plan::to_json(engine.plan()));
      then(go);
    });
  }

  std::vector<TensorId> values_told() const {
    const auto found = options.renewed_values.find(rank);
    return found == options.renewed_values.end() ? std::vector<TensorId>() : found->second;
  }

  void observe(double waited) {
    const auto since = [&](runtime::Time at) { return std::chrono::duration<double>(at - begun->at).count(); };
    plan::Observation seen{since(node.now()), waited - begun->waited, {}};
    for (const auto& at : engine.handed_in_since(begun->at)) seen.handed_in.push_back(at ? std::optional(since(*at)) : std::nullopt);
    window.add(begun->iteration, std::move(seen));
    if (const auto profile = window.take(node.now())) membership.tell_profile(*profile);
  }

  struct Begun {
    Iteration iteration = 0;
    runtime::Time at{};
    double waited = 0;
  };

  int rank;
  const SimTrainingOptions& options;
  runtime::sim::SimMember& node;
  runtime::sim::SimCompute compute;
  std::vector<std::vector<float>> values;
  Model model;         // that is trained now
  bool is_new = true;  // its values are to come
  bool renewed = false;
  std::function<void()> after_renewal;
  session::ReplaceableEngine engine;
  ScriptedWorker worker;
  session::ProfileWindow window;
  bool watching = false;
  std::optional<Begun> begun;
  std::vector<std::string> plans;
  bool goodbye = false;
  std::optional<Error> failed;
  cluster::Membership membership;
};

// A dedicated server, as cluster::serve puts it together.
struct SimTraining::Server {
  Server(SimTraining& job, int the_number)
      : number(the_number),
        workers(job.options_.script.plan.workers),
        node(job.world_.at(job.member(workers + number))),
        compute(node, {.sum_bytes_per_second = 5e9, .flops_per_second = job.options_.flops_per_second}),
        membership(node, node, compute,
                   {.self = {job.member(workers + number), Rank{workers + number}, "server" + std::to_string(number), 200 + number, {}, 1,
                             static_cast<std::uint32_t>(number)},
                    .workers = workers,
                    .servers = job.options_.servers,
                    .coordinator = {},
                    .model = {},
                    .heartbeat = job.options_.coordinator.heartbeat},
                   {.on_plan = [this](const cluster::OpenEpoch& epoch, const cluster::UsePlan& use) { install(epoch, use); },
                    .on_start = nullptr,
                    .on_settle = nullptr,
                    .on_gathered = nullptr,
                    .on_goodbye = [this] { goodbye = true; },
                    .on_fail = [this](const Error& why) { failed = why; }}) {}

  void install(const cluster::OpenEpoch& epoch, const cluster::UsePlan& use) {
    plans.push_back(use.plan);
    plan::Plan plan = plan::parse_plan(use.plan, use.model.value(), workers).value();
    session::EngineOptions made{.self = Rank{workers + number}, .members = {},
                                .model = plan::model_on_wire(*use.model, workers, plan.wire), .plan = std::move(plan),
                                .window_bytes = use.window_bytes};
    for (const cluster::MemberInfo& info : epoch.members) made.members.push_back(info.member);
    engine.reset();
    engine = session::EngineSession::create(node, node, compute, std::move(made)).value();
    membership.ready();
  }

  int number;
  int workers;
  runtime::sim::SimMember& node;
  runtime::sim::SimCompute compute;
  std::unique_ptr<session::Engine> engine;
  std::vector<std::string> plans;
  bool goodbye = false;
  std::optional<Error> failed;
  cluster::Membership membership;
};

SimTraining::SimTraining(SimTrainingOptions options) : options_(std::move(options)), world_(options_.world) {
  const int workers = options_.script.plan.workers;
  options_.coordinator.workers = workers;
  options_.coordinator.servers = options_.servers;
  runtime::sim::SimMember& hub = world_.add(runtime::kCoordinator);
  for (int rank = 0; rank < workers + options_.servers; ++rank) world_.add(member(rank));
  cluster::CoordinatorListener listener;
  listener.on_wait = [this](const std::string& text) { waits.push_back(text); };
  // Nobody is told of a provisional plan.
  if (options_.renew_at) versions.push_back({0, uniform_plan(options_.script.model, workers, Scheme::kPs)});
  listener.on_plan = [this](const plan::Plan& plan, const auto&, const auto&, const auto&) {
    versions.push_back({options_.renew_at.value_or(0), plan});
  };
  listener.on_links = [this](const std::vector<cluster::MeasuredLink>& measured) { links = measured; };
  listener.on_change = [this](const cluster::PlanChange& change) {
    changes.push_back(change);
    versions.push_back({change.from, change.plan});
  };
  listener.on_finish = [this] { finished = true; };
  listener.on_fail = [this](const Error& why) { failed = why; };
  coordinator_ = std::make_unique<cluster::Coordinator>(hub, hub, options_.coordinator, std::move(listener));
  for (int rank = 0; rank < workers; ++rank) {
    crews_.push_back(std::make_unique<Crew>(*this, rank));
    world_.at(member(rank)).post([crew = crews_.back().get()] { crew->membership.join(); });
  }
  for (int number = 0; number < options_.servers; ++number) {
    servers_.push_back(std::make_unique<Server>(*this, number));
    world_.at(member(workers + number)).post([server = servers_.back().get()] { server->membership.join(); });
  }
}

SimTraining::~SimTraining() = default;

bool SimTraining::run_to_end(runtime::Duration limit) {
  return world_.run_until(
      [this] {
        return (finished || failed) && std::all_of(crews_.begin(), crews_.end(), [this](const auto& crew) {
                 return !world_.at(member(crew->rank)).alive() || crew->goodbye || crew->failed;
               });
      },
      world_.now() + limit);
}

bool SimTraining::run_to(Iteration iteration) {
  return world_.run_until([&] { return failed || finished || options_.script.first + crews_[0]->plans.size() > iteration; },
                          world_.now() + 1000s);
}

const std::vector<std::vector<float>>& SimTraining::parameters(int rank) const { return crews_[static_cast<std::size_t>(rank)]->values; }
std::optional<Error> SimTraining::error(int rank) const { return crews_[static_cast<std::size_t>(rank)]->failed; }
const std::vector<std::string>& SimTraining::plans(int rank) const { return crews_[static_cast<std::size_t>(rank)]->plans; }
const std::vector<std::string>& SimTraining::plans_of_server(int number) const { return servers_[static_cast<std::size_t>(number)]->plans; }
bool SimTraining::server_has_ended(int number) const { return servers_[static_cast<std::size_t>(number)]->goodbye; }
session::EngineUse SimTraining::use(int rank) const { return crews_[static_cast<std::size_t>(rank)]->engine.use(); }

TrainingScript SimTraining::script_as_run() const {
  TrainingScript script = options_.script;
  script.plan = versions.front().plan;
  script.later.assign(versions.begin() + 1, versions.end());
  return script;
}

}  // namespace poseidon::test
