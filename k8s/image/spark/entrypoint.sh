#!/bin/sh
# connect [spark-submit arguments]   a Spark Connect server
# executor                           an executor pod, as the server's Kubernetes scheduler starts it
set -eu
case "$1" in
  connect)
    shift
    exec spark-submit --load-spark-defaults "$@" \
      --class org.apache.spark.sql.connect.service.SparkConnectServer spark-internal
    ;;
  executor)
    # pip's pyspark has no Kubernetes entrypoint; this is what the one of Spark's own image makes of its variables.
    env | sed -n 's/^SPARK_JAVA_OPT_[0-9]*=//p' > /tmp/java-options
    exec java @/tmp/java-options -Xms"$SPARK_EXECUTOR_MEMORY" -Xmx"$SPARK_EXECUTOR_MEMORY" \
      -cp "$SPARK_HOME/conf:$SPARK_HOME/jars/*" \
      org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
      --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
      --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
      --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
  *)
    exec "$@"
    ;;
esac
