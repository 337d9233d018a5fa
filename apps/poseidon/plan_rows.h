// What `poseidon plan` answers: a row for each cluster that was asked about, as text and as JSON.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "apps/poseidon/schedule_options.h"
#include "apps/poseidon/workload_options.h"
#include "plan/bound.h"
#include "replay/simulated_cluster.h"

namespace poseidon::app {

struct PlanRow {
  int nodes = 1;             // that train
  plan::Serving serving;
  ScheduleOptions schedule;
  std::string bandwidth;     // as the user wrote it
  double alone_seconds = 0;  // of an iteration on one node without communication
  Prospect prospect;
  replay::SimulationResult result;

  std::string nodes_text() const;    // "8", or "8 + 4" with four dedicated servers
  double iteration_seconds() const;  // the median
  double speedup() const { return nodes * alone_seconds / iteration_seconds(); }
  double fraction_of_bound() const { return prospect.bound_seconds / iteration_seconds(); }
  double link_used() const;          // share of the link's capacity, of the busier direction
  // What a user would have to change to go faster: "computing", "rebuilding", "the link", "waiting for fc6".
  std::string limit() const;
};

void print_heading(const replay::Workload& workload);
void print_row(const PlanRow& row);
// A line for each layer that trains something.
void print_layers(const PlanRow& row, const replay::Workload& workload);
// One row's fields, or {"rows": [...]} for several.
nlohmann::ordered_json to_json(const std::vector<PlanRow>& rows, const replay::Workload& workload);

}  // namespace poseidon::app
