import com.amazonaws.services.lambda.runtime.ClientContext;
import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.util.HashMap;
import java.util.Map;

/** The behaviours of the matrix for AWS's Java runtime interface client. */
public class Behaviours implements RequestHandler<Object, Object> {
    private int calls = 0;

    public Behaviours() {
        if (System.getenv("FAIL_INIT") != null) {
            throw new IllegalArgumentException("init on purpose");
        }
    }

    /** Does what "do" asks for; any other event is answered with itself. */
    @Override
    public Object handleRequest(Object event, Context context) {
        calls++;
        Map<?, ?> asked = event instanceof Map ? (Map<?, ?>) event : Map.of();
        switch (String.valueOf(asked.get("do"))) {
            case "fail":
                return fail();
            case "context":
                return describe(context);
            case "count":
                return Map.of("n", asked.get("n"), "count", calls);
            case "sleep":
                sleep((Number) asked.get("seconds"));
                return event;
            case "size":
                return Map.of("bytes", ((String) asked.get("data")).length());
            case "big":
                return "x".repeat(((Number) asked.get("bytes")).intValue() - "\"\"".length());
            default:
                return event;
        }
    }

    private static Object fail() {
        throw new IllegalStateException("on purpose");
    }

    private static void sleep(Number seconds) {
        try {
            Thread.sleep(seconds.longValue() * 1000);
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }

    private static Map<String, Object> describe(Context context) {
        ClientContext client = context.getClientContext();
        Map<String, Object> answer = new HashMap<>();
        answer.put("request_id", context.getAwsRequestId());
        answer.put("arn", context.getInvokedFunctionArn());
        answer.put("name", context.getFunctionName());
        answer.put("version", context.getFunctionVersion());
        answer.put("memory_mb", context.getMemoryLimitInMB());
        answer.put("remaining_ms", context.getRemainingTimeInMillis());
        answer.put("trace_id", System.getProperty("com.amazonaws.xray.traceHeader"));
        answer.put("client_context", client == null ? null : client.getCustom());
        return answer;
    }
}
