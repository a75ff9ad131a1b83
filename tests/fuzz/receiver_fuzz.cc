// A request as the webhook receiver sees it, its target and headers a line each, then an empty
// line and the body: authentication, checks and the mapping end with a record or a refusal. The
// first byte chooses how clients show who they are.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "backends/webhook/receiver_auth.h"
#include "backends/webhook/receiver_options.h"
#include "backends/webhook/receiver_provider.h"
#include "mapping.h"

namespace {

using namespace relay;
using namespace relay::webhook;

using fuzz::next_line;
using fuzz::text;

ReceiverOptions options_of(config::Node::Object object) {
  auto checked = config::check(object, receiver_fields(), "fuzz");
  return *parse_receiver_options(checked.values, 1 << 20);
}

const std::array<ReceiverOptions, 8>& all_options() {
  static const std::array<ReceiverOptions, 8> options = {
      options_of({}),
      options_of({{"auth", text("bearer")}, {"bearer_token", text("t")}}),
      options_of({{"auth", text("basic")}, {"user", text("u")}, {"password", text("p")}}),
      options_of({{"auth", text("header")}, {"auth_value", text("v")}}),
      options_of({{"auth", text("hmac")}, {"signature_secret", text("whsec_a2V5 k")}}),
      options_of({{"auth", text("github")}, {"signature_secret", text("a-secret")}}),
      options_of({{"auth", text("stripe")}, {"signature_secret", text("a-secret")}}),
      options_of({{"auth", text("slack")}, {"signature_secret", text("a-secret")}})};
  return options;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const ReceiverOptions& options = all_options()[data[0] % all_options().size()];
  std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  ReceivedRequest request;
  request.method = "POST";
  request.target = next_line(rest);
  for (std::string_view line = next_line(rest); !line.empty(); line = next_line(rest)) {
    const auto colon = std::min(line.find(':'), line.size());
    request.headers.emplace_back(line.substr(0, colon),
                                 line.substr(std::min(colon + 1, line.size())));
  }
  request.body = rest;
  (void)check_head(request, options.path);
  (void)options.auth.head_allowed(request);
  (void)options.auth.body_allowed(request,
                                  std::chrono::system_clock::time_point(std::chrono::seconds(1)));
  (void)check_body(request);
  (void)check_provider_body(options.auth.kind(), request);
  (void)handshake_answer(options.auth.kind(), request);
  const EventRules rules{"p:", options.auth.kind(), options.auth.secret_header()};
  Arena arena;
  (void)to_record(request, rules, fuzz::mapping(), "new", arena);
  (void)to_record(request, rules, FieldMapping(), "new", arena);
  return 0;
}
