// What SQS, the token service and the shared files say, each decoder for itself, chosen by the
// first byte.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "aws/credentials.h"
#include "aws/token_service.h"
#include "backends/sqs/batch_answer.h"
#include "backends/sqs/errors.h"
#include "backends/sqs/received.h"
#include "mapping.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace relay;
  using namespace relay::aws;
  using namespace relay::sqs;
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0: {
      const auto messages = parse_received(body, "fuzz");
      if (!messages) return 0;
      Arena arena;
      for (const Received& message : *messages) {
        (void)to_record(message, "queue", EventRules{}, fuzz::mapping_for(data[0] / 5), arena);
      }
      break;
    }
    case 1:
      (void)parse_batch_answer(body, "fuzz", data[0] / 5 % 11);
      break;
    case 2: {
      http::Response response;
      response.status = 400;
      response.body = body;
      (void)response_error("fuzz", response);
      break;
    }
    case 3:
      (void)xml_text(body, "AccessKeyId");
      (void)parse_time(xml_text(body, "Expiration"));
      break;
    default:
      (void)parse_ini(body);
      (void)parse_time(body);
  }
  return 0;
}
