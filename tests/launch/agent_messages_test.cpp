#include "launch/agent_messages.h"

#include <gmock/gmock.h>

#include <random>

namespace poseidon::launch {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<AgentMessage> read_all(AgentMessageReader& reader) {
  std::vector<AgentMessage> messages;
  while (true) {
    auto next = reader.next();
    if (!next.ok() || !*next) return messages;
    messages.push_back(std::move(**next));
  }
}

TEST(AgentMessages, ComeWholeHoweverTheirBytesCome) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::string bytes = "Last login: today\nposeidon-agent 12\n" + std::string(kGreeting);
    std::vector<std::string> bodies;
    for (int i = 0; i < 5; ++i) {
      std::string body(random() % 300, '\0');
      for (char& letter : body) letter = static_cast<char>(random());
      bytes += to_bytes({Speech::kOutput, body});
      bodies.push_back(std::move(body));
    }
    AgentMessageReader reader(false);
    std::vector<AgentMessage> messages;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t length = std::min<std::size_t>(1 + random() % 100, bytes.size() - at);
      reader.feed(std::string_view(bytes).substr(at, length));
      at += length;
      for (AgentMessage& message : read_all(reader)) messages.push_back(std::move(message));
    }
    ASSERT_EQ(messages.size(), bodies.size());
    for (std::size_t i = 0; i < bodies.size(); ++i) {
      EXPECT_EQ(messages[i].kind, Speech::kOutput);
      EXPECT_EQ(messages[i].body, bodies[i]);
    }
    EXPECT_EQ(reader.noise(), "Last login: today\nposeidon-agent 12\n");
  }
}

TEST(AgentMessages, WithoutAGreetingEverythingIsNoise) {
  AgentMessageReader reader(false);
  reader.feed("bash: poseidon: command not found\n");
  EXPECT_TRUE(read_all(reader).empty());
  EXPECT_FALSE(reader.has_been_greeted());
  EXPECT_EQ(reader.noise(), "bash: poseidon: command not found\n");
  for (int i = 0; i < 1000; ++i) {
    reader.feed("0123456789");
    ASSERT_TRUE(read_all(reader).empty());
  }
  EXPECT_LE(reader.noise().size(), 4096U);
}

TEST(AgentMessages, WhatIsNoneIsRefused) {
  for (const char* bytes : {"nonsense 3\nabc", "output\n", "output -1\n", "output 99999999999\n", "output 3x\nabc", "output 33554432\n",
                            "a line that goes on and on without ever coming to an end, longer than any message's first line may be"}) {
    AgentMessageReader reader(true);
    reader.feed(bytes);
    const auto next = reader.next();
    ASSERT_FALSE(next.ok()) << bytes;
    EXPECT_EQ(next.error().code, ErrorCode::kCorruptFrame);
  }
}

TEST(AgentMessages, BodiesComeBackAsTheyWere) {
  const AgentStart start{.secret = std::string(64, 'a'),
                         .coordinators = {{"10.0.0.1", 4711}, {"fe80::1", 4712}},
                         .folder = "/home/user/with blank",
                         .environment = {{"A", "1"}, {"B", "x=y"}},
                         .python = true,
                         .workers = 3,
                         .nodes = {{0, {"python", "train.py", "--text", "two words"}, {{"RANK", "0"}}}, {3, {"poseidon", "serve"}, {}}}};
  const auto again = decode_start(encode(start));
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->secret, start.secret);
  EXPECT_EQ(again->coordinators, start.coordinators);
  EXPECT_EQ(again->folder, start.folder);
  EXPECT_EQ(again->environment, start.environment);
  EXPECT_TRUE(again->python);
  EXPECT_EQ(again->workers, 3);
  ASSERT_EQ(again->nodes.size(), 2U);
  EXPECT_EQ(again->nodes[0].command, start.nodes[0].command);
  EXPECT_EQ(again->nodes[1].number, 3);

  const auto hello = decode_hello(encode(AgentHello{"1.2", "node-b", 8, 4711, 5000}));
  ASSERT_TRUE(hello.ok());
  EXPECT_EQ(hello->host, "node-b");
  EXPECT_EQ(hello->cores, 8);

  const auto output = decode_output(encode(NodeOutput{2, true, std::string("a\0b\n\xff", 5)}));
  ASSERT_TRUE(output.ok());
  EXPECT_EQ(output->number, 2);
  EXPECT_TRUE(output->is_error);
  EXPECT_EQ(output->bytes, std::string("a\0b\n\xff", 5));

  const auto exit = decode_exit(encode(NodeExit{1, {.code = 0, .signal = 9}, 1.5, Error{ErrorCode::kTimeout, "too late\nby far"}}));
  ASSERT_TRUE(exit.ok());
  EXPECT_EQ(exit->exit.signal, 9);
  ASSERT_TRUE(exit->said);
  EXPECT_EQ(exit->said->code, ErrorCode::kTimeout);
  EXPECT_EQ(exit->said->message, "too late\nby far");

  const auto started = decode_started(encode(AgentStarted{{"10.0.0.1", 4711}, {{0, 12}, {2, 13}}}));
  ASSERT_TRUE(started.ok());
  EXPECT_EQ(started->pids.at(2), 13);
}

TEST(AgentMessages, MalformedBodiesAreRefused) {
  for (const char* body : {"", "[]", "{}", "{\"secret\": 3}", "\xff"}) {
    EXPECT_FALSE(decode_start(body).ok()) << body;
    EXPECT_FALSE(decode_hello(body).ok()) << body;
    EXPECT_FALSE(decode_started(body).ok()) << body;
    EXPECT_FALSE(decode_exit(body).ok()) << body;
    EXPECT_FALSE(decode_output(body).ok()) << body;
    EXPECT_FALSE(decode_signal(body).ok()) << body;
  }
  EXPECT_FALSE(decode_exit(R"({"number": -1, "code": 0, "signal": 0, "cpu_seconds": 1})").ok());
  EXPECT_FALSE(decode_exit(R"({"number": 1, "code": 18446744073709551615, "signal": 0, "cpu_seconds": 1})").ok());
  EXPECT_FALSE(decode_output("70000 output\nx").ok());
  EXPECT_FALSE(decode_output("1 other\nx").ok());
  EXPECT_FALSE(decode_signal("0").ok());
}

}  // namespace
}  // namespace poseidon::launch
