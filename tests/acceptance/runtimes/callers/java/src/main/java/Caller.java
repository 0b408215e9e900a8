import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.http.urlconnection.UrlConnectionHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.lambda.LambdaClient;
import software.amazon.awssdk.services.lambda.model.LambdaException;

/** Calls functions with AWS's SDK for Java; caller_rows.py has the lines it reads and prints. */
public class Caller {
    private static String call(LambdaClient client, String type, String function, String payload) {
        try {
            var answer = client.invoke(request -> request
                .functionName(function)
                .invocationType(type)
                .payload(SdkBytes.fromUtf8String(payload)));
            var error = answer.functionError() == null ? "" : answer.functionError();
            var body = answer.payload() == null ? "" : answer.payload().asUtf8String();
            return String.join("\t", "ok", answer.statusCode().toString(), error, body);
        } catch (LambdaException fault) {
            return String.join("\t", "exception", fault.getClass().getSimpleName(),
                Integer.toString(fault.statusCode()), fault.awsErrorDetails().errorMessage());
        }
    }

    public static void main(String[] arguments) throws IOException {
        var keys = StaticCredentialsProvider.create(AwsBasicCredentials.create("dummy", "dummy"));
        var out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (var client = LambdaClient.builder()
                .endpointOverride(URI.create(arguments[0]))
                .region(Region.US_EAST_1)
                .credentialsProvider(keys)
                .httpClient(UrlConnectionHttpClient.create())
                .overrideConfiguration(config -> config.retryStrategy(retry -> retry.maxAttempts(1)))
                .build()) {
            for (var line = in.readLine(); line != null; line = in.readLine()) {
                var parts = line.split("\t", 3);
                out.println(call(client, parts[0], parts[1], parts[2]));
            }
        }
    }
}
