#pragma once

#include <string>
#include <utility>

#include "curl_requests.h"

namespace bench {

/// Signed requests to an SQS server.
class SqsRequests : public Requests {
 public:
  explicit SqsRequests(const std::string& endpoint)
      : Requests([endpoint](CURL* easy) {
          curl_easy_setopt(easy, CURLOPT_URL, endpoint.c_str());
          curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, "aws:amz:eu-west-1:sqs");
          curl_easy_setopt(easy, CURLOPT_USERPWD, "AKIATEST:secret");
        }) {}

  void send(Request& request, const char* action, std::function<void(Request&)> answered) {
    const std::string target = std::string("X-Amz-Target: AmazonSQS.") + action;
    request.headers = curl_slist_append(nullptr, "Content-Type: application/x-amz-json-1.0");
    request.headers = curl_slist_append(request.headers, target.c_str());
    request.headers = curl_slist_append(request.headers, "Expect:");
    Requests::send(request, std::move(answered));
  }
};

/// That a batch of SQS has no entry that failed.
inline void check_batch(const Request& request) {
  if (request.answer.find(R"("Failed":[{)") != std::string::npos) {
    die("a batch", request.answer.c_str());
  }
}

}  // namespace bench
