#include "launch/cluster_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace poseidon::launch {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(ClusterFile, HasWhatThePublishedOneHad) {
  const ClusterFile file = parse_cluster_file(R"({
    "virtualenv": "/home/ubuntu/sandbox", "username": "ubuntu", "pem_file": "/path/to/key.pem", "master_node": "localhost",
    "worker_nodes": ["192.168.1.11", "192.168.1.15", "192.168.1.11"], "server_nodes": ["192.168.1.70"]})",
                                              "f").value();
  EXPECT_THAT(file.workers, ElementsAre("192.168.1.11", "192.168.1.15", "192.168.1.11"));
  EXPECT_THAT(file.servers, ElementsAre("192.168.1.70"));
  EXPECT_EQ(file.master, "localhost");
  EXPECT_EQ(file.username, "ubuntu");
  EXPECT_EQ(file.pem_file, "/path/to/key.pem");
  EXPECT_EQ(file.virtualenv, "/home/ubuntu/sandbox");
}

TEST(ClusterFile, NeedsWorkersOnly) {
  const ClusterFile file = parse_cluster_file(R"({"worker_nodes": ["127.0.0.1"]})", "f").value();
  EXPECT_THAT(file.workers, ElementsAre("127.0.0.1"));
  EXPECT_THAT(file.servers, IsEmpty());
  EXPECT_EQ(file.username, "");
}

TEST(ClusterFile, SaysWhatIsWrong) {
  const auto refusal = [](const char* text) {
    const Result<ClusterFile> file = parse_cluster_file(text, "f");
    return file ? "it was taken" : file.error().message;
  };
  EXPECT_THAT(refusal("{"), HasSubstr("f: this is no JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("JSON object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("\"worker_nodes\" names no node"));
  EXPECT_THAT(refusal(R"({"worker_nodes": []})"), HasSubstr("\"worker_nodes\" names no node"));
  EXPECT_THAT(refusal(R"({"worker_nodes": "a"})"), HasSubstr("must be a list"));
  EXPECT_THAT(refusal(R"({"worker_nodes": [1]})"), HasSubstr("must be a list"));
  EXPECT_THAT(refusal(R"({"worker_nodes": ["-x"]})"), AllOf(HasSubstr("\"-x\""), HasSubstr("is no host")));
  EXPECT_THAT(refusal(R"({"worker_node": ["a"]})"), HasSubstr("did you mean worker_nodes?"));
  EXPECT_THAT(refusal(R"({"worker_nodes": ["a"], "username": 7})"), HasSubstr("\"username\" must be a string"));
  EXPECT_THAT(refusal(R"({"worker_nodes": ["a"], "username": "-l root"})"), HasSubstr("no user's name"));
  EXPECT_THAT(refusal(R"({"worker_nodes": ["a"], "master_node": "a;b"})"), HasSubstr("\"master_node\" is no host"));
}

}  // namespace
}  // namespace poseidon::launch
