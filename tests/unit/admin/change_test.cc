#include "admin/change.h"

#include <gtest/gtest.h>

namespace relay::admin {
namespace {

HttpRequest post(const std::string& path, const std::string& body = "",
                 std::map<std::string, std::string> query = {}) {
  HttpRequest request;
  request.method = "POST";
  request.path = path;
  request.body = body;
  request.query = std::move(query);
  return request;
}

/// "function(parameters)", "nothing", or "error: ...".
std::string told(const HttpRequest& request) {
  const auto change = change_of(request);
  if (!change) return "error: " + change.error().message;
  if (!*change) return "nothing";
  const std::string_view sql = (*change)->route->sql;
  const auto begin = sql.find('.') + 1;
  std::string text(sql.substr(begin, sql.find('(') - begin));
  text += '(';
  for (const auto& param : (*change)->params) {
    if (!text.ends_with('(')) text += ',';
    text += param.value_or("null");
  }
  return text + ")";
}

TEST(Change, EachPathLeadsToItsFunction) {
  EXPECT_EQ(told(post("/api/pipelines/orders/pause")), "pause_relay(orders)");
  EXPECT_EQ(told(post("/api/pipelines/orders/resume")), "resume_relay(orders,false)");
  EXPECT_EQ(told(post("/api/dlq/7/retry")), "relay_dlq_retry(7)");
  EXPECT_EQ(told(post("/api/dlq/7/discard")), "relay_dlq_discard(7)");
}

TEST(Change, ArgumentsComeFromTheBodyOrTheQuery) {
  EXPECT_EQ(told(post("/api/pipelines/a/replay", R"({"from": 3, "to": 9})")),
            "replay_relay(a,3,9)");
  EXPECT_EQ(told(post("/api/pipelines/a/replay", "", {{"from", "3"}})), "replay_relay(a,3,null)");
  EXPECT_EQ(told(post("/api/pipelines/a/resume", R"({"accept_loss": true})")),
            "resume_relay(a,true)");
  EXPECT_EQ(told(post("/api/pipelines/a/resume", "", {{"accept_loss", "true"}})),
            "resume_relay(a,true)");
  EXPECT_EQ(told(post("/api/dlq/retry", R"({"pipeline": "a"})")), "relay_dlq_retry_all(a)");
}

TEST(Change, AnyNameOfAPipelineIsTaken) {
  EXPECT_EQ(told(post("/api/pipelines/a/b/pause")), "pause_relay(a/b)");
  EXPECT_EQ(told(post("/api/pipelines/pause/pause")), "pause_relay(pause)");
  EXPECT_EQ(told(post("/api/pipelines/'; drop table x/pause")), "pause_relay('; drop table x)");
}

TEST(Change, WrongArgumentsAreRefusedByName) {
  for (const auto& [body, word] :
       std::vector<std::pair<std::string, std::string>>{{"", "from"},
                                                        {"{}", "from"},
                                                        {R"({"from": 0})", "from"},
                                                        {R"({"from": "x"})", "from"},
                                                        {R"({"from": 1, "until": 2})", "until"},
                                                        {"[1]", "object"},
                                                        {"{", "JSON"}}) {
    const std::string answer = told(post("/api/pipelines/a/replay", body));
    EXPECT_TRUE(answer.starts_with("error: ")) << body << ": " << answer;
    EXPECT_NE(answer.find(word), std::string::npos) << body << ": " << answer;
  }
  EXPECT_TRUE(told(post("/api/pipelines/a/pause", R"({"x": 1})")).starts_with("error: "));
  EXPECT_TRUE(told(post("/api/dlq/retry")).starts_with("error: "));
}

TEST(Change, ElsewhereThereIsNothingToChange) {
  for (const char* path : {"/api/pipelines", "/api/pipelines/", "/api/pipelines/a",
                           "/api/pipelines//pause", "/api/pipelines/pause", "/api/dlq",
                           "/api/dlq/x/retry", "/api/dlq/7", "/api/dlq/7/send", "/metrics", ""}) {
    EXPECT_EQ(told(post(path)), "nothing") << path;
  }
}

}  // namespace
}  // namespace relay::admin
