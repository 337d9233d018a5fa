#include "plan/hosts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace poseidon::plan {
namespace {

using ::testing::HasSubstr;

HostGroups groups(std::vector<std::vector<int>> numbers) {
  HostGroups result;
  for (const std::vector<int>& group : numbers) {
    result.emplace_back();
    for (const int rank : group) result.back().push_back(Rank{rank});
  }
  return result;
}

TEST(HostGroups, HoldTheWorkersOfOneMachine) {
  EXPECT_EQ(group_by_machine({"a", "a", "b", "b"}, PerHost::kAll), groups({{0, 1}, {2, 3}}));
  EXPECT_EQ(group_by_machine({"a", "a", "a"}, PerHost::kAll), groups({{0, 1, 2}}));
}

TEST(HostGroups, AreInTheOrderOfTheirFirstRanksWhateverTheLauncherDid) {
  EXPECT_EQ(group_by_machine({"b", "a", "b", "c", "a"}, PerHost::kAll), groups({{0, 2}, {1, 4}, {3}}));
}

TEST(HostGroups, HaveAtMostSoManyWorkers) {
  EXPECT_EQ(group_by_machine({"a", "a", "a", "a", "a"}, PerHost{2}), groups({{0, 1}, {2, 3}, {4}}));
  EXPECT_EQ(group_by_machine({"a", "b", "a", "b", "a"}, PerHost{2}), groups({{0, 2}, {1, 3}, {4}}));
}

TEST(HostGroups, AreNoneWhereNobodyHasCompany) {
  EXPECT_TRUE(group_by_machine({"a", "b", "c"}, PerHost::kAll).empty());
  EXPECT_TRUE(group_by_machine({"", "", ""}, PerHost::kAll).empty()) << "who cannot share memory is of no machine";
  EXPECT_TRUE(group_by_machine({"a", "a"}, PerHost::kOff).empty());
}

TEST(HostGroups, GiveTheNetworkOneNodeEach) {
  Plan plan{.workers = 5, .layers = {{"fc", Scheme::kAdam, {}, Rank{1}}}, .hosts = groups({{0, 2}, {1, 3, 4}})};
  EXPECT_EQ(nodes_of(plan), 2);
  EXPECT_EQ(host_place(plan, Rank{3}).group, 1u);
  EXPECT_EQ(host_place(plan, Rank{3}).place, 1u);
  const Plan network = network_plan(plan);
  EXPECT_EQ(network.workers, 2);
  EXPECT_EQ(network.layers, plan.layers);
  EXPECT_TRUE(network.hosts.empty());
  Model model{{{"w", {8, 4}, DType::kFloat32}}, {{"fc", {TensorId{0}}, 6}}};
  EXPECT_EQ(network_model(model, plan.hosts).layers[0].factor_rows, 18u) << "three workers of six rows";
}

TEST(PerHost, IsReadAsAWordOrANumber) {
  EXPECT_EQ(parse_per_host("off").value(), PerHost::kOff);
  EXPECT_EQ(parse_per_host("on").value(), PerHost::kAll);
  EXPECT_EQ(parse_per_host("4").value(), PerHost{4});
  for (const char* const wrong : {"", "1", "0", "-2", "2x", "yes", "99999999999"}) {
    EXPECT_THAT(parse_per_host(wrong).error().message, HasSubstr("off, on, or how many")) << wrong;
  }
}

struct HostsInAPlan : ::testing::Test {
  std::string error(const std::string& hosts, const std::string& layer = R"({"name": "fc", "scheme": "ps"})") {
    const Result<Plan> plan = parse(hosts, layer);
    return plan.ok() ? "accepted" : plan.error().message;
  }
  Result<Plan> parse(const std::string& hosts, const std::string& layer) {
    return parse_plan(R"({"poseidon_plan": 1, "workers": 4, "hosts": )" + hosts + R"(, "layers": [)" + layer + "]}", model, 4);
  }
  Model model{{{"w", {8, 4}, DType::kFloat32}}, {{"fc", {TensorId{0}}, 6}}};
};

TEST_F(HostsInAPlan, ComeBackAsTheyWere) {
  const Plan plan{.workers = 4, .layers = {{"fc", Scheme::kBlock, {2, 1}, Rank{0}}}, .hosts = groups({{0, 1}, {2, 3}})};
  const Result<Plan> again = parse_plan(to_json(plan), model, 4);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(*again, plan);
}

TEST_F(HostsInAPlan, AreLeftOutWhereThereAreNone) {
  const Plan plan{.workers = 4, .layers = {{"fc", Scheme::kPs, {}, Rank{0}}}};
  EXPECT_EQ(to_json(plan).find("hosts"), std::string::npos);
  EXPECT_TRUE(parse("[[0], [1], [2], [3]]", R"({"name": "fc", "scheme": "ps"})").value().hosts.empty());
}

TEST_F(HostsInAPlan, NameEveryRankOnceInOrder) {
  EXPECT_EQ(error("[[0, 2], [1, 3]]"), "accepted");
  for (const char* const wrong : {"[[0, 1], [2]]", "[[0, 1], [1, 2, 3]]", "[[1, 0], [2, 3]]", "[[2, 3], [0, 1]]", "[[0, 1], [2, 4]]",
                                  "[[0, 1, 2, 3], []]", "[[0, 1], [2, -3]]", "[0, 1, 2, 3]", "\"all\"", "[[0.5, 1], [2, 3]]"}) {
    EXPECT_THAT(error(wrong), HasSubstr("must name each rank from 0 to 3 once")) << wrong;
  }
}

TEST_F(HostsInAPlan, ServeInTheirSharesAndNobodyElseDoes) {
  Plan plan{.workers = 4, .layers = {{"fc", Scheme::kPs, {}, Rank{0}}}, .server_shares = {1, 3}, .hosts = groups({{0, 1}, {2, 3}})};
  EXPECT_EQ(plan.nodes(), 2);
  EXPECT_EQ(parse_plan(to_json(plan), model, 4).value(), plan);
  for (const std::vector<std::uint32_t>& wrong : {std::vector<std::uint32_t>{1}, {1, 3, 1}, {1, 1, 1, 1}}) {
    plan.server_shares = wrong;
    EXPECT_THAT(parse_plan(to_json(plan), model, 4).error().message, HasSubstr("its 2 hosts' shares")) << wrong.size();
  }
}

TEST_F(HostsInAPlan, AreCalledByTheirLeaders) {
  const std::vector<Rank> leaders = leaders_of(groups({{0, 1}, {2, 3}}));
  EXPECT_EQ(node_name(Rank{1}, 2, leaders), "rank 2");
  EXPECT_EQ(node_name(Rank{1}, 2), "rank 1");
}

TEST_F(HostsInAPlan, AreTheOwnersOfBlocks) {
  EXPECT_THAT(error("[[0, 1], [2, 3]]", R"({"name": "fc", "scheme": "block", "grid": [2, 2]})"), HasSubstr("not one of 2 hosts"));
  EXPECT_THAT(error("[[0, 1], [2, 3]]", R"({"name": "fc", "scheme": "adam", "owner": 2})"), HasSubstr("the number of a host from 0 to 1"));
  EXPECT_EQ(error("[[0, 1], [2, 3]]", R"({"name": "fc", "scheme": "adam", "owner": 1})"), "accepted");
}

}  // namespace
}  // namespace poseidon::plan
